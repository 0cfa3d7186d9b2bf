//! Where a run reads and writes: the terminal, or memory in tests.

use std::io::{Read, Write};

use crate::Error;

/// Standard streams of one run.
pub struct Console {
    /// What was asked for.
    pub out: Box<dyn Write + Send>,
    /// Everything else.
    pub err: Box<dyn Write + Send>,
    /// For `-f -`.
    pub input: Box<dyn Read + Send>,
}

impl Console {
    /// The process' own streams.
    pub fn standard() -> Console {
        Console {
            out: Box::new(std::io::stdout()),
            err: Box::new(std::io::stderr()),
            input: Box::new(std::io::stdin()),
        }
    }

    /// Writes text as it is, at once.
    pub fn print(&mut self, text: &str) -> Result<(), Error> {
        self.print_bytes(text.as_bytes())
    }

    /// Writes a line.
    pub fn line(&mut self, text: &str) -> Result<(), Error> {
        self.print(&format!("{text}\n"))
    }

    /// Writes bytes as they are, at once.
    pub fn print_bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).and_then(|()| self.out.flush()).map_err(Error::Output)
    }

    /// Tells the user something that is not part of the output.
    pub fn note(&mut self, text: &str) {
        // Where standard error is closed nobody wants to know.
        let _ = writeln!(self.err, "{text}");
    }
}
