//! Checks whether a commit of this server survives a crash and a failover.

use tokio_postgres::Client;

/// What the server's settings mean for a run.
pub(super) struct Durability {
    /// Why no run may begin.
    pub(super) refusal: Option<String>,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
}

/// Checks the settings that decide whether a commit is kept.
pub(super) async fn check(client: &Client) -> Result<Durability, tokio_postgres::Error> {
    // Every user may count the standbys; only some may see how each of them is replicated.
    let row = client
        .query_typed_one(
            "SELECT current_setting('fsync', true) AS fsync, current_setting('full_page_writes', true) AS full_page_writes,
                    coalesce(current_setting('synchronous_standby_names', true), '') AS synchronous,
                    (SELECT count(*) FROM pg_catalog.pg_stat_replication) AS standbys",
            &[],
        )
        .await?;
    let (fsync, pages): (Option<&str>, Option<&str>) = (row.try_get("fsync")?, row.try_get("full_page_writes")?);
    let (synchronous, standbys): (&str, i64) = (row.try_get("synchronous")?, row.try_get("standbys")?);
    let refusal = (fsync == Some("off")).then(|| {
        "`fsync` is off, so a crash of the server loses commits, and their recipients get the message again".to_owned()
    });
    let mut warnings = Vec::new();
    if pages == Some("off") {
        warnings.push(
            "the database has `full_page_writes` off: a crash of its server can damage the ledger, unless its disk writes pages whole".to_owned(),
        );
    }
    if standbys > 0 && synchronous.is_empty() {
        warnings.push(
            "the database has standbys, and none of them is synchronous: a failover loses the last commits, and their recipients get the message again; set `synchronous_standby_names`".to_owned(),
        );
    }
    Ok(Durability { refusal, warnings })
}
