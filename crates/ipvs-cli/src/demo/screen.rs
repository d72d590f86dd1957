//! What the demo shows while it runs: lines, and one line that changes.

use std::io::{self, IsTerminal as _, Stdout, Write as _};
use std::time::{Duration, Instant};

/// How often progress is shown on a terminal.
const REDRAW: Duration = Duration::from_millis(100);
/// How often it is shown elsewhere, where every time is a new line.
const NEW_LINE: Duration = Duration::from_secs(1);
/// Where a terminal does not say how wide it is.
const COLUMNS: usize = 100;

/// Standard output. Nobody may be reading it: the demo goes on all the same,
/// and its exit status tells the outcome.
#[derive(Debug)]
pub(super) struct Screen {
    out: Stdout,
    is_terminal: bool,
    /// A changing line stands there.
    is_dirty: bool,
    shown: Option<Instant>,
}

impl Screen {
    pub(super) fn stdout() -> Self {
        let out = io::stdout();
        let is_terminal = out.is_terminal();
        Self { out, is_terminal, is_dirty: false, shown: None }
    }

    /// Shows a line that stays.
    pub(super) fn line(&mut self, text: &str) {
        let clear = if self.is_dirty { "\r\x1b[K" } else { "" };
        self.is_dirty = false;
        self.write(&format!("{clear}{text}\n"));
    }

    /// Shows a heading.
    pub(super) fn heading(&mut self, text: &str) {
        let (bold, plain) = if self.is_terminal { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        self.line(&format!("\n{bold}== {text}{plain}"));
    }

    /// Shows lines that stay, a little to the right.
    pub(super) fn indented(&mut self, text: &str) {
        text.lines().for_each(|line| self.line(&format!("  {line}")));
    }

    /// Shows how far things are, in place of what was shown of it before, but
    /// not too often; `text` is made only if it is shown.
    pub(super) fn progress(&mut self, text: impl FnOnce() -> String) {
        let pause = if self.is_terminal { REDRAW } else { NEW_LINE };
        if self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        if self.is_terminal {
            let columns = rustix::termios::tcgetwinsize(&self.out)
                .map_or(COLUMNS, |size| usize::from(size.ws_col));
            let text: String = text().chars().take(columns.saturating_sub(1)).collect();
            self.is_dirty = true;
            self.write(&format!("\r\x1b[K{text}"));
        } else {
            self.line(&text());
        }
    }

    fn write(&mut self, text: &str) {
        let mut out = self.out.lock();
        let _unread = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}
