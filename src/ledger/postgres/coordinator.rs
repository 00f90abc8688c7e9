//! What the appliers of a database share, and the heartbeat of a run.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::BEGIN_DURABLE;
use super::begin::{abandon, fence_dead};
use super::connection::Connection;
use super::statements::{ASSERT_NOT_FENCED, HEARTBEAT, RESERVE};
use crate::domain::clock::Clock;
use crate::domain::lease::{Lease, Moment};
use crate::ledger::chain::JournalDigest;
use crate::ledger::contract::{Activity, Coordinator, MAX_SENDER_PAUSE};
use crate::ledger::error::LedgerError;

/// What the commits, the heartbeat and the coordination of a run share.
pub(super) struct Shared {
    /// For the coordination alone.
    pub(super) connection: tokio::sync::Mutex<Connection>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) run: i64,
    pub(super) campaign: i32,
    pub(super) sender: String,
    pub(super) interval: Duration,
    /// Intents without a durable outcome.
    pub(super) open: AtomicU64,
    pub(super) digest: Mutex<JournalDigest>,
    /// Commits and heartbeats confirm it. What leaves within most of the lease leaves before another applier may
    /// record its outcome as unknown.
    pub(super) lease: Lease,
    /// Whether `open` and `digest` agree with the database. After a lost answer they may not, and the database is
    /// queried.
    pub(super) certain: AtomicBool,
}

/// Gives signs of life at this interval, and fences off runs that give none. The connection is used for nothing
/// else, so that the heartbeat waits for no commit.
pub(super) async fn send_heartbeats(shared: Arc<Shared>, mut connection: Connection, every: Duration) {
    loop {
        let beaten = connection.with("written", async |client| shared.beat(client).await).await;
        // After a lost connection it tries again soon.
        tokio::time::sleep(if beaten.is_ok() { every } else { every / 10 }).await;
    }
}

#[async_trait]
impl Coordinator for Shared {
    async fn reserve(&self, messages: u32, most: u32) -> Result<Duration, LedgerError> {
        let mut connection = self.connection.lock().await;
        let span = self.interval.as_secs_f64() * f64::from(messages);
        // An applier uses one reservation and has made the next one.
        let of_one = 2.0 * self.interval.as_secs_f64() * f64::from(most);
        let pause = MAX_SENDER_PAUSE.as_secs_f64();
        let delay: f64 = connection
            .with("written", async |client| {
                let rows = client
                    .query_typed(
                        RESERVE,
                        &[
                            (&self.sender, Type::TEXT),
                            (&span, Type::FLOAT8),
                            (&pause, Type::FLOAT8),
                            (&of_one, Type::FLOAT8),
                        ],
                    )
                    .await?;
                rows.first().map_or(Ok(0.0), |row| row.try_get("delay"))
            })
            .await?;
        Ok(Duration::try_from_secs_f64(delay.max(0.0)).unwrap_or_default())
    }

    async fn pause_sender(&self, pause: Duration) -> Result<(), LedgerError> {
        let mut connection = self.connection.lock().await;
        connection
            .with("written", async |client| {
                client
                    .execute_typed(
                        "UPDATE sendform.number SET next_at = greatest(next_at, clock_timestamp() + $2 * interval '1 second') WHERE sender = $1",
                        &[(&self.sender, Type::TEXT), (&pause.as_secs_f64(), Type::FLOAT8)],
                    )
                    .await
            })
            .await
            .map(drop)
    }

    async fn next_chunk(&self) -> Result<u64, LedgerError> {
        let mut connection = self.connection.lock().await;
        let chunk: i64 = connection
            .with("written", async |client| {
                let row = client
                    .query_typed_one(
                        "UPDATE sendform.campaign SET next_share = next_share + 1 WHERE id = $1 RETURNING next_share - 1 AS chunk",
                        &[(&self.campaign, Type::INT4)],
                    )
                    .await?;
                row.try_get("chunk")
            })
            .await?;
        Ok(chunk.cast_unsigned())
    }

    async fn activity(&self) -> Result<Activity, LedgerError> {
        let open = self.open.load(Ordering::SeqCst).cast_signed();
        let mut connection = self.connection.lock().await;
        let others: Vec<i64> = connection
            .with("written", async |client| {
                self.beat(client).await?;
                client.execute_typed(ASSERT_NOT_FENCED, &[(&self.run, Type::INT8), (&open, Type::INT8)]).await?;
                let rows = client
                    .query_typed(
                        "SELECT open FROM sendform.run WHERE campaign = $1 AND id <> $2 AND ended_at IS NULL",
                        &[(&self.campaign, Type::INT4), (&self.run, Type::INT8)],
                    )
                    .await?;
                rows.iter().map(|row| row.try_get("open")).collect()
            })
            .await?;
        Ok(Activity { appliers: others.len() as u64, open: others.iter().sum::<i64>().cast_unsigned() })
    }
}

impl Shared {
    /// Refreshes the heartbeat, and fences off runs whose heartbeat is too old.
    async fn beat(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let asked = Moment::of(self.clock.as_ref());
        if client.execute_typed(HEARTBEAT, &[(&self.run, Type::INT8)]).await? == 1 {
            self.lease.confirmed(asked);
        }
        let dead = client
            .query_typed(
                "SELECT id FROM sendform.run WHERE campaign = $1 AND id <> $2 AND ended_at IS NULL
                   AND heartbeat_at < clock_timestamp() - lease_ms * interval '1 millisecond' LIMIT 1",
                &[(&self.campaign, Type::INT4), (&self.run, Type::INT8)],
            )
            .await?;
        if dead.is_empty() { Ok(()) } else { self.fence(client).await }
    }

    /// Fences off dead runs, and records their open attempts as unknown.
    async fn fence(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        client.batch_execute(BEGIN_DURABLE).await?;
        client
            .query_typed("SELECT id FROM sendform.campaign WHERE id = $1 FOR UPDATE", &[(&self.campaign, Type::INT4)])
            .await?;
        let now = self.clock.now().as_millisecond();
        fence_dead(client, self.campaign, self.run, now).await?;
        abandon(client, self.campaign, self.run, now).await?;
        client.batch_execute("COMMIT").await
    }
}
