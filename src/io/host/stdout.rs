//! The standard output of a command whose reader may go away, as in `flashmob job show 8 | head -2`.

use std::panic::{self, PanicHookInfo};

/// Lets the program end without a word when it prints and nobody reads any longer. `print!` panics then,
/// because Rust's programs ignore SIGPIPE; restoring the signal's action instead would let a connection that
/// the other side closes end the program as well. The panic goes on, so temporary files are removed and
/// programs that were started are ended.
pub fn end_quietly_when_closed() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        if !info.payload_as_str().is_some_and(is_closed_output) {
            usual(info);
        }
    }));
}

fn is_closed_output(message: &str) -> bool {
    message.starts_with("failed printing to stdout") && message.contains("Broken pipe")
}
