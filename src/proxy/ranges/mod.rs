//! Answers from stored parts of a response (RFC 9110 section 14, RFC 9111 section 3.4).

mod answer;
mod assemble;
