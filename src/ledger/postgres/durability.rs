//! Whether a commit of this server survives a crash, and a failover.

use tokio_postgres::Client;

/// What the server's settings say.
pub(super) struct Durability {
    /// Why no run may begin.
    pub(super) refusal: Option<String>,
    /// What whoever starts a run should know.
    pub(super) warnings: Vec<String>,
}

/// Looks at the settings that decide whether a commit is kept.
pub(super) async fn look(client: &Client) -> Result<Durability, tokio_postgres::Error> {
    // Everybody may count the standbys; how each of them is replicated to, only some may see.
    let row = client
        .query_typed_one(
            "SELECT current_setting('fsync', true), current_setting('full_page_writes', true),
                    coalesce(current_setting('synchronous_standby_names', true), ''),
                    (SELECT count(*) FROM pg_catalog.pg_stat_replication)",
            &[],
        )
        .await?;
    let (fsync, pages): (Option<&str>, Option<&str>) = (row.get(0), row.get(1));
    let (synchronous, standbys): (&str, i64) = (row.get(2), row.get(3));
    let refusal = (fsync == Some("off")).then(|| {
        "`fsync` is off, so a crash of the server loses commits, and their recipients are sent to again".to_owned()
    });
    let mut warnings = Vec::new();
    if pages == Some("off") {
        warnings.push(
            "the database has `full_page_writes` off: a crash of its server can damage the ledger, unless its disk writes pages whole".to_owned(),
        );
    }
    if standbys > 0 && synchronous.is_empty() {
        warnings.push(
            "the database has standbys, and none of them is synchronous: a failover loses the last commits, and their recipients are sent to again; set `synchronous_standby_names`".to_owned(),
        );
    }
    Ok(Durability { refusal, warnings })
}
