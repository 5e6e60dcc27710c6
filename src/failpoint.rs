//! Boundaries at which tests make the process end or stop. Without the feature `failpoints` nothing of this is compiled
//! in, and [`reach`] is nothing.
//!
//! With it, the variable `FAILPOINTS` says what happens where, in the syntax of the crate `fail`: `after-intent=return`
//! ends the process there as `abort` does (no destructor runs, nothing is flushed), `after-intent=return(stop)` stops it as
//! SIGSTOP does, `return(hang)` holds whoever comes there for good while all else goes on, and `2*off->return` lets it pass
//! twice before.
//!
//! `journal-socket=return(PATH)` is no boundary: log entries go there instead of to systemd's journal.
//!
//! | boundary | what has just been done, or is about to be |
//! |---|---|
//! | `before-pass` | the work loop looks at the queue |
//! | `before-intent`, `after-intent` | commit 1 |
//! | `before-check` | the connection stands; the last question whether the call may leave |
//! | `before-write`, `after-write` | the request's body goes to the connection |
//! | `after-answer` | Graph's answer is known to this process only |
//! | `before-record`, `after-record` | commit 2 |
//! | `before-settle`, `after-settle` | a read-back settles doubts |
//! | `after-claim-of-completions` | reprovisions are about to be looked at |
//! | `before-completion`, `after-completion` | what became of reprovisions is recorded |
//! | `at-shutdown` | all calls have ended, the worker is still registered |

/// This boundary is reached.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn reach(_boundary: &'static str) {}

/// This boundary is reached.
#[cfg(feature = "failpoints")]
pub fn reach(boundary: &'static str) {
    fail::eval(boundary, |word| match word.as_deref() {
        Some("stop") => {
            // What cannot be sent to oneself cannot stop anything: the test that asked for it will say so.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
            // The kernel may hand it to another thread first: this one must go no further until it has been stopped.
            #[allow(clippy::disallowed_methods, reason = "holding this thread is what it is for")]
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        // What else this thread had to do goes on in another.
        Some("hang") => tokio::task::block_in_place(|| {
            loop {
                #[allow(clippy::disallowed_methods, reason = "holding this thread is what it is for")]
                std::thread::sleep(std::time::Duration::from_hours(1));
            }
        }),
        _ => std::process::abort(),
    });
}

/// `usual`, or what a test wants instead.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn instead(_name: &'static str, usual: &'static str) -> String {
    usual.to_owned()
}

/// `usual`, or what a test wants instead.
#[cfg(feature = "failpoints")]
pub fn instead(name: &'static str, usual: &'static str) -> String {
    fail::eval(name, |word| word).flatten().unwrap_or_else(|| usual.to_owned())
}

/// This boundary is reached a moment from now, when what was handed over has left.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn reach_soon(_boundary: &'static str) {}

/// This boundary is reached a moment from now, when what was handed over has left.
#[cfg(feature = "failpoints")]
pub fn reach_soon(boundary: &'static str) {
    if fail::list().iter().any(|(configured, _)| configured == boundary) {
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(40)).await;
            reach(boundary);
        });
    }
}

/// Reads `FAILPOINTS`. Whoever calls this keeps what it gives for as long as the process lives.
#[cfg(feature = "failpoints")]
pub fn setup() -> fail::FailScenario<'static> {
    fail::FailScenario::setup()
}
