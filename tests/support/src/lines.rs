//! The lines that a child writes, as they come.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// The lines of any number of pipes.
#[derive(Default)]
pub struct Lines {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    /// Pipes that are still open.
    open: usize,
}

impl Lines {
    /// Reads a pipe to its end, in a thread of its own.
    pub fn collect(lines: &Arc<Self>, pipe: impl Read + Send + 'static) {
        lines.state().open += 1;
        let lines = Arc::clone(lines);
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                // Not every octet may be text: that is one of the things tested.
                let line = String::from_utf8_lossy(&line).into_owned();
                lines.state().lines.push(line);
                lines.changed.notify_all();
            }
            lines.state().open -= 1;
            lines.changed.notify_all();
        });
    }

    /// All lines so far.
    pub fn all(&self) -> Vec<String> {
        self.state().lines.clone()
    }

    /// Waits until the lines are enough or all pipes have ended, for this long at most.
    pub fn wait(&self, time: Duration, are_enough: impl Fn(&[String]) -> bool) {
        let result = self.changed.wait_timeout_while(self.state(), time, |state| {
            state.open > 0 && !are_enough(&state.lines)
        });
        drop(result.expect("no panic"));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }
}
