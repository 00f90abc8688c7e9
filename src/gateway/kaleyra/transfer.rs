//! The transfer of one request to its connection: which bytes have left, whether more may leave, and which step
//! takes too long.
//!
//! The connection takes the form piece by piece; a file leaves in slices of 64 KiB, and the closing
//! boundary is a piece of its own, without which no server can take the form for complete. Before each piece the body
//! checks that the run still holds its lease and that the request was not cancelled. Both sides change one atomic
//! stage, so the side that cancels a request learns for certain how much of it the connection has: nothing, a part, or
//! all.
//!
//! hyper writes the head of a request together with the first piece of its body. If the body fails before its first
//! piece, nothing was sent.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use super::multipart::Form;
use super::uploads::{Moved, Uploads};
use crate::domain::lease::Lease;

/// The size of a slice of a file, in bytes.
const SLICE: usize = 64 * 1024;

/// The time limit of each step of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Until the first piece leaves: looking up the name, TCP and TLS.
    pub(super) connect: Duration,
    /// Between two pieces, and from the closing boundary to the end of the answer.
    pub(super) progress: Duration,
    /// From the first piece to the closing boundary.
    pub(super) upload: Duration,
}

/// How much of a request the connection has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// No byte.
    Nothing,
    /// Some of it, without the closing boundary.
    Part,
    /// All.
    All,
}

/// Which step took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    Connection,
    Progress,
    Upload,
    Response,
}

const WAITING: u8 = 0;
const BEGUN: u8 = 1;
const COMPLETE: u8 = 2;
const STOPPED_BEFORE: u8 = 3;
const STOPPED_WITHIN: u8 = 4;

/// One request in transfer, shared by the task of the connection and the task of the request.
#[derive(Debug)]
pub(super) struct Transfer {
    made: Instant,
    lease: Option<Lease>,
    limits: Limits,
    stage: AtomicU8,
    /// When the first piece left, and when the last one left or the transfer was stopped: nanoseconds since `made`.
    begun: AtomicU64,
    moved: AtomicU64,
    /// Whether it was stopped because the lease was over.
    lease_over: AtomicBool,
    /// Whether the connection must end as well. Until then a stopped body only waits, so that a response that came
    /// before its end can be read.
    over: AtomicBool,
    waker: Mutex<Option<Waker>>,
    upload: Option<Upload>,
}

#[derive(Debug)]
struct Upload {
    uploads: Arc<Uploads>,
    bytes: u64,
    started: Mutex<Option<f64>>,
}

impl Transfer {
    /// A request of which nothing has left. `uploads` is notified when its files leave.
    pub(super) fn new(limits: Limits, lease: Option<Lease>, form: &Form, uploads: &Arc<Uploads>) -> Arc<Self> {
        let upload = (form.file_bytes > 0).then(|| Upload {
            uploads: Arc::clone(uploads),
            bytes: form.file_bytes,
            started: Mutex::default(),
        });
        Arc::new(Self {
            made: Instant::now(),
            lease,
            limits,
            stage: AtomicU8::new(WAITING),
            begun: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            lease_over: AtomicBool::new(false),
            over: AtomicBool::new(false),
            waker: Mutex::default(),
            upload,
        })
    }

    /// The body that carries `form`.
    pub(super) fn body(self: &Arc<Self>, form: Form) -> reqwest::Body {
        reqwest::Body::wrap(Body { left: form.length(), form, closed: false, transfer: Arc::clone(self) })
    }

    /// Stops the transfer, and returns how much has left.
    pub(super) fn stop(&self) -> Taken {
        let stopped = self.stage.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |stage| match stage {
            WAITING => Some(STOPPED_BEFORE),
            BEGUN => Some(STOPPED_WITHIN),
            _ => None,
        });
        if stopped.is_ok() {
            self.moved.store(self.now(), Ordering::SeqCst);
        }
        match stopped.unwrap_or_else(|stage| stage) {
            WAITING | STOPPED_BEFORE => Taken::Nothing,
            BEGUN | STOPPED_WITHIN => Taken::Part,
            _ => Taken::All,
        }
    }

    /// Whether it was stopped because the run's lease may be over.
    pub(super) fn lease_is_over(&self) -> bool {
        self.lease_over.load(Ordering::SeqCst)
    }

    /// Reports the end of the upload, if this is one. Only the first report counts.
    pub(super) fn ended(&self, moved: Moved) {
        if let Some(upload) = &self.upload
            && let Some(started) = upload.started.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            upload.uploads.ended(started, upload.bytes, moved);
        }
    }

    /// Waits until a step takes too long.
    pub(super) async fn overdue(&self) -> Overdue {
        loop {
            let (deadline, overdue) = self.deadline();
            if Instant::now() >= deadline {
                return overdue;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }

    fn deadline(&self) -> (Instant, Overdue) {
        let Limits { connect, progress, upload } = self.limits;
        let after = |since: &AtomicU64, limit: Duration| {
            self.made + Duration::from_nanos(since.load(Ordering::SeqCst)).saturating_add(limit)
        };
        match self.stage.load(Ordering::SeqCst) {
            WAITING => (self.made + connect, Overdue::Connection),
            BEGUN => {
                let (next, all) = (after(&self.moved, progress), after(&self.begun, upload));
                if next < all { (next, Overdue::Progress) } else { (all, Overdue::Upload) }
            }
            _ => (after(&self.moved, progress), Overdue::Response),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether the next piece may leave. If so, it counts as taken.
    fn take(&self, closing: bool) -> bool {
        if self.lease.as_ref().is_some_and(|lease| !lease.holds()) {
            self.lease_over.store(true, Ordering::SeqCst);
            self.stop();
            return false;
        }
        let now = self.now();
        let was = self.stage.load(Ordering::SeqCst);
        if was == WAITING {
            self.begun.store(now, Ordering::SeqCst);
        }
        if was <= BEGUN {
            self.moved.store(now, Ordering::SeqCst);
        }
        let next = if closing { COMPLETE } else { BEGUN };
        if was > BEGUN || self.stage.compare_exchange(was, next, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return false;
        }
        if was == WAITING
            && let Some(upload) = &self.upload
        {
            *upload.started.lock().unwrap_or_else(PoisonError::into_inner) = Some(upload.uploads.started());
        }
        true
    }

    /// Cancels the request: the connection ends as well.
    fn give_up(&self) {
        self.stop();
        self.ended(Moved::Unmeasured);
        self.over.store(true, Ordering::SeqCst);
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}

/// Cancels a request when its task ends or is dropped.
pub(super) struct GiveUp(pub(super) Arc<Transfer>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// Ends the body of a cancelled request.
#[derive(Debug, thiserror::Error)]
#[error("the request was cancelled")]
struct GivenUp;

struct Body {
    form: Form,
    closed: bool,
    /// The number of bytes that have not left.
    left: u64,
    transfer: Arc<Transfer>,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = GivenUp;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, GivenUp>>> {
        if self.closed {
            return Poll::Ready(None);
        }
        let closing = self.form.pieces.is_empty();
        if !self.transfer.take(closing) {
            // If the body waited before its first piece, hyper would write the head alone.
            if self.transfer.stop() == Taken::Nothing || self.transfer.lease_is_over() {
                return Poll::Ready(Some(Err(GivenUp)));
            }
            *self.transfer.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
            // Checked after the waker is stored: a later cancellation wakes it.
            return if self.transfer.over.load(Ordering::SeqCst) {
                Poll::Ready(Some(Err(GivenUp)))
            } else {
                Poll::Pending
            };
        }
        let piece = match self.form.pieces.front_mut() {
            None => {
                self.closed = true;
                self.form.closing.clone()
            }
            Some(first) if first.len() > SLICE => first.split_to(SLICE),
            Some(_) => self.form.pieces.pop_front().unwrap_or_default(),
        };
        self.left -= piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.closed
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;
    use crate::domain::lease::Moment;
    use crate::gateway::kaleyra::multipart::{Boundary, Value};

    const LIMITS: Limits = Limits {
        connect: Duration::from_secs(10),
        progress: Duration::from_secs(30),
        upload: Duration::from_secs(300),
    };

    struct Way {
        transfer: Arc<Transfer>,
        body: Body,
        uploads: Arc<Uploads>,
    }

    impl Way {
        fn new(file: usize, lease: Option<Lease>) -> Self {
            let content = Bytes::from(vec![7; file]);
            let mut fields = vec![("to", Value::Text("+919876543210".into()))];
            if file > 0 {
                fields.push(("media", Value::File { name: "a.mp4", mime: "video/mp4", content }));
            }
            let form = Boundary::draw().unwrap().form(fields);
            let uploads = Arc::new(Uploads::new(LIMITS.progress));
            let transfer = Transfer::new(LIMITS, lease, &form, &uploads);
            let body = Body { left: form.length(), form, closed: false, transfer: Arc::clone(&transfer) };
            Self { transfer, body, uploads }
        }

        /// The next piece; nothing if the body waits; an error if it refuses.
        fn next(&mut self) -> Option<Result<Bytes, ()>> {
            let mut context = Context::from_waker(Waker::noop());
            match Pin::new(&mut self.body).poll_frame(&mut context) {
                Poll::Ready(Some(Ok(frame))) => Some(Ok(frame.into_data().unwrap())),
                Poll::Ready(Some(Err(GivenUp))) => Some(Err(())),
                Poll::Ready(None) => panic!("polled after its end"),
                Poll::Pending => None,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_leaves_in_slices_and_the_closing_boundary_alone() {
        let mut way = Way::new(150_000, None);
        let length = way.body.size_hint().exact().unwrap();
        let mut pieces = Vec::new();
        while !way.body.is_end_stream() {
            assert_ne!(way.transfer.stage.load(Ordering::SeqCst), COMPLETE);
            pieces.push(way.next().unwrap().unwrap());
        }
        let lengths: Vec<usize> = pieces[1..4].iter().map(Bytes::len).collect();
        assert_eq!(lengths, [SLICE, SLICE, 150_000 - 2 * SLICE]);
        assert_eq!(pieces.last().unwrap(), &way.body.form.closing);
        assert_eq!(pieces.iter().map(|piece| piece.len() as u64).sum::<u64>(), length);
        assert_eq!(way.transfer.stop(), Taken::All);
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_lease_nothing_more_leaves_and_it_is_known_what_has() {
        let lease = Lease::new(Duration::from_secs(24), Moment::now());
        // Over before the first piece.
        let mut way = Way::new(0, Some(lease.clone()));
        tokio::time::advance(Duration::from_secs(25)).await;
        assert_eq!(way.next(), Some(Err(())));
        assert_eq!((way.transfer.stop(), way.transfer.lease_is_over()), (Taken::Nothing, true));
        // Over before the closing boundary.
        lease.confirmed(Moment::now());
        let mut way = Way::new(0, Some(lease.clone()));
        assert!(way.next().unwrap().is_ok());
        tokio::time::advance(Duration::from_secs(25)).await;
        assert_eq!(way.next(), Some(Err(())));
        assert_eq!((way.transfer.stop(), way.transfer.lease_is_over()), (Taken::Part, true));
        // A heartbeat in time keeps an upload going.
        lease.confirmed(Moment::now());
        let mut way = Way::new(100_000, Some(lease.clone()));
        while !way.body.is_end_stream() {
            assert!(way.next().unwrap().is_ok());
            tokio::time::advance(Duration::from_secs(20)).await;
            lease.confirmed(Moment::now());
        }
        assert_eq!(way.transfer.stop(), Taken::All);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_up_sends_no_closing_boundary() {
        let mut way = Way::new(100_000, None);
        way.next().unwrap().unwrap();
        let give_up = GiveUp(Arc::clone(&way.transfer));
        assert_eq!(way.transfer.stop(), Taken::Part);
        // The answer may still be read; then the connection goes.
        assert_eq!(way.next(), None);
        drop(give_up);
        assert_eq!(way.next(), Some(Err(())));

        let mut way = Way::new(0, None);
        drop(GiveUp(Arc::clone(&way.transfer)));
        assert_eq!(way.next(), Some(Err(())));
        assert_eq!(way.transfer.stop(), Taken::Nothing);
    }

    #[tokio::test(start_paused = true)]
    async fn each_step_has_its_limit_and_progress_starts_it_anew() {
        let way = Way::new(100_000, None);
        assert_eq!(way.transfer.overdue().await, Overdue::Connection);
        assert_eq!(way.transfer.made.elapsed().as_secs(), 10);

        let mut way = Way::new(100_000, None);
        for _ in 0..3 {
            way.next().unwrap().unwrap();
            tokio::time::advance(Duration::from_secs(20)).await;
        }
        assert_eq!(way.transfer.overdue().await, Overdue::Progress);
        assert_eq!(way.transfer.made.elapsed().as_secs(), 70);

        let mut way = Way::new(2_000_000, None);
        while way.transfer.deadline().1 == Overdue::Connection || way.transfer.made.elapsed().as_secs() < 290 {
            way.next().unwrap().unwrap();
            tokio::time::advance(Duration::from_secs(15)).await;
        }
        assert_eq!(way.transfer.overdue().await, Overdue::Upload);
        assert_eq!(way.transfer.made.elapsed().as_secs(), 300);

        let mut way = Way::new(0, None);
        tokio::time::advance(Duration::from_secs(9)).await;
        (0..2).for_each(|_| drop(way.next().unwrap().unwrap()));
        assert_eq!(way.transfer.overdue().await, Overdue::Response);
        assert_eq!(way.transfer.made.elapsed().as_secs(), 39);
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_is_measured_from_its_first_piece_to_its_answer() {
        let mut way = Way::new(1_000_000, None);
        // Connecting does not count.
        tokio::time::advance(Duration::from_secs(5)).await;
        while !way.body.is_end_stream() {
            way.next().unwrap().unwrap();
        }
        tokio::time::advance(Duration::from_secs(2)).await;
        way.transfer.ended(Moved::All);
        drop(GiveUp(Arc::clone(&way.transfer)));
        assert_eq!(way.uploads.budget(), 5_000_000);
    }
}
