//! curl in a loop, while servers die and come back: no request may fail but while a check has
//! not noticed yet what has happened.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Result, anyhow, ensure};
use ipvs_e2e::{Bed, programs};

pub(crate) const NEEDS: &str = "curl";

/// When requests may fail: in odd ages.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    age: AtomicU64,
    over: AtomicBool,
}

impl Trouble {
    /// Does what makes requests fail, until they need not any more.
    pub(crate) fn during<R>(&self, work: impl FnOnce() -> R) -> R {
        self.age.fetch_add(1, Ordering::SeqCst);
        let done = work();
        self.age.fetch_add(1, Ordering::SeqCst);
        done
    }

    fn age(&self) -> u64 {
        self.age.load(Ordering::SeqCst)
    }
}

/// Ends the visits, also if the work panics: the test would wait for them for ever.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Gets `url` again and again while `work` goes on, and fails for what fails without excuse.
pub(crate) fn visiting<R>(
    bed: &Bed,
    url: &str,
    work: impl FnOnce(&Trouble) -> Result<R>,
) -> Result<R> {
    let trouble = Trouble::default();
    thread::scope(|scope| {
        let visitor = scope.spawn(|| visit(bed, url, &trouble));
        let over = Over(&trouble.over);
        let done = work(&trouble);
        drop(over);
        let (answered, failed) =
            visitor.join().map_err(|_panic| anyhow!("the visitor has panicked"))?;
        let done = done?;
        ensure!(failed.is_empty(), "{answered} answered, and without excuse not: {failed:#?}");
        ensure!(answered != 0, "no request was answered");
        Ok(done)
    })
}

/// How many requests were answered, and how those failed that should not have.
fn visit(bed: &Bed, url: &str, trouble: &Trouble) -> (u64, Vec<String>) {
    let (mut answered, mut failed) = (0, Vec::new());
    while !trouble.over.load(Ordering::SeqCst) {
        let before = trouble.age();
        let options = ["--silent", "--show-error", "--fail", "--max-time", "2", url];
        match programs::run(bed.lab.client(), "curl", &options) {
            Ok(_) => answered += 1,
            Err(error) if before.is_multiple_of(2) && before == trouble.age() => {
                failed.push(format!("age {before}: {error:#}"));
            }
            Err(_) => {}
        }
    }
    (answered, failed)
}
