//! The standard output of a command whose reader may go away, as in `flashmob job show 8 | head -2`.

use std::panic::{self, PanicHookInfo};

/// 128 and the number of SIGPIPE, as a shell tells of a program that the signal ended.
const CLOSED: i32 = 141;

/// Lets the program end without a word when it prints and nobody reads any longer. `print!` panics then,
/// because Rust's programs ignore SIGPIPE; restoring the signal's action instead would let a connection that
/// the other side closes end the program as well.
pub fn end_quietly_when_closed() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        if info.payload_as_str().is_some_and(is_closed_output) {
            std::process::exit(CLOSED);
        }
        usual(info);
    }));
}

fn is_closed_output(message: &str) -> bool {
    message.starts_with("failed printing to stdout") && message.contains("Broken pipe")
}
