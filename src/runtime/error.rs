//! Why a runtime could not start, or ended: for a person to read.

use core::fmt;

/// What failed, why, and what to do about it.
#[derive(Debug)]
pub struct Error {
    what: String,
    why: String,
    advice: String,
}

/// What the runtime's own calls return.
pub type Result<T> = core::result::Result<T, Error>;

impl Error {
    /// An error from its three parts; `advice` may be empty.
    pub fn new(
        what: impl Into<String>,
        why: impl fmt::Display,
        advice: impl Into<String>,
    ) -> Self {
        Self { what: what.into(), why: why.to_string(), advice: advice.into() }
    }

    /// A configuration that cannot be.
    pub fn config(why: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: String::new(), why: why.into(), advice: advice.into() }
    }

    /// The same error, said of `what`.
    pub fn within(mut self, what: &str) -> Self {
        self.what =
            if self.what.is_empty() { what.to_owned() } else { format!("{what}: {}", self.what) };
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.what.is_empty() {
            write!(f, "{}: ", self.what)?;
        }
        f.write_str(&self.why)?;
        if !self.advice.is_empty() {
            write!(f, "; {}", self.advice)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
