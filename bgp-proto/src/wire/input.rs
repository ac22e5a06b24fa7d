//! Our words around nom, which is a vocabulary here and not a framework.
//!
//! Owns: the input and error type of every nom parser in the codec, and the steps that they are made of. Never:
//! framing, the attribute loop, prefix loops and encoding, which are plain code.
//!
//! An error says how many octets were left where parsing failed, which gives the offset for free. Only `complete`
//! parsers are used: after framing, nothing can be incomplete.

use nom::error::{ErrorKind, FromExternalError, ParseError};

pub use nom::Parser;
pub use nom::bytes::complete::take;
pub use nom::combinator::rest;
pub use nom::multi::length_data;
pub use nom::number::complete::{be_u8, be_u16, be_u32};

/// What is parsed: the rest of a message, or of a part of one.
pub type In<'a> = &'a [u8];

/// The result of one parser.
pub type Parsed<'a, T> = nom::IResult<In<'a>, T, Malformed>;

/// Where a parser gave up: its input ended too early, or held a value that is not allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// Octets of the input that were left there.
    pub rest: usize,
}

impl<'a> ParseError<In<'a>> for Malformed {
    fn from_error_kind(input: In<'a>, _: ErrorKind) -> Self {
        Malformed { rest: input.len() }
    }

    /// The innermost place is the useful one.
    fn append(_: In<'a>, _: ErrorKind, other: Self) -> Self {
        other
    }
}

impl<'a, E> FromExternalError<In<'a>, E> for Malformed {
    fn from_external_error(input: In<'a>, _: ErrorKind, _: E) -> Self {
        Malformed { rest: input.len() }
    }
}

impl From<nom::Err<Malformed>> for Malformed {
    fn from(error: nom::Err<Malformed>) -> Self {
        match error {
            nom::Err::Error(malformed) | nom::Err::Failure(malformed) => malformed,
            // Complete parsers never return this.
            nom::Err::Incomplete(_) => Malformed { rest: 0 },
        }
    }
}
