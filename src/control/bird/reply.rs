//! Replies as they stand on the line (CTL-5, CTL-6).
//!
//! Owns: codes, continuation, the limit of a line. Never: knows what is said.

use std::fmt::{Display, Write as _};

/// Longest line with its code; BIRD's buffer has 512 octets, one of them for the end.
const LINE: usize = 511;

/// Reply codes that are used in more than one place.
pub mod code {
    #![allow(missing_docs, reason = "the names say it")]
    pub const OK: u16 = 0;
    pub const WELCOME: u16 = 1;
    pub const SYNTAX: u16 = 9001;
    pub const NO_PROTOCOL: u16 = 9002;
}

/// Lines of one connection, in order.
#[derive(Debug, Default)]
pub struct Reply {
    text: String,
    /// Code of the line before.
    before: Option<u16>,
    shut: bool,
}

impl Reply {
    /// The greeting (CTL-3).
    pub fn welcome(version: &str) -> Reply {
        let mut reply = Reply::default();
        reply.last(code::WELCOME, format_args!("BIRD {version} ready."));
        reply
    }

    /// A line that more lines follow. The code of a run of equal ones stands in its first line only.
    pub fn line(&mut self, code: u16, text: impl Display) {
        self.put(code, '-', text);
    }

    /// The last line.
    pub fn last(&mut self, code: u16, text: impl Display) {
        self.put(code, ' ', text);
        self.before = None;
    }

    /// The end of a table.
    pub fn done(&mut self) {
        self.last(code::OK, "");
    }

    /// The connection is to be closed after this.
    pub fn close(&mut self) {
        self.shut = true;
    }

    /// Whether the connection is to be closed.
    pub const fn closes(&self) -> bool {
        self.shut
    }

    /// Octets that wait.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// What was said so far; what follows goes on from there.
    pub fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    fn put(&mut self, code: u16, separator: char, text: impl Display) {
        let start = self.text.len();
        let goes_on = separator == '-' && self.before == Some(code);
        // Writing into a string cannot fail.
        let _ = if goes_on {
            write!(self.text, " {text}")
        } else {
            write!(self.text, "{code:04}{separator}{text}")
        };
        if self.text.len() - start > LINE {
            self.text.truncate(start);
            let _ = write!(self.text, "8000{separator}<line overflow>");
            self.before = Some(8000);
        } else {
            self.before = Some(code);
        }
        self.text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_one_code_says_it_once_and_the_last_line_always() {
        let mut reply = Reply::welcome("v1");
        reply.line(2002, "name");
        reply.line(1002, "a");
        reply.line(1002, "b");
        reply.line(1006, "  c");
        reply.line(1002, "d");
        reply.done();
        reply.line(1002, "e");
        let text = "0001 BIRD v1 ready.\n2002-name\n1002-a\n b\n1006-  c\n1002-d\n0000 \n1002-e\n";
        assert_eq!(reply.take(), text);
    }

    #[test]
    fn a_line_that_no_client_could_read_is_replaced() {
        let mut reply = Reply::default();
        reply.line(1012, "x".repeat(506));
        reply.line(1012, "x".repeat(511));
        reply.line(1012, "y");
        let text = reply.take();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].len(), 511);
        assert_eq!(lines[1..], ["8000-<line overflow>", "1012-y"]);
    }
}
