//! How the validation of a stored response ended.

reasons! {
    /// How the validation of a stored response ended.
    ValidationEnd {}
    Confirmed: "confirmed", "the origin confirmed it by 304";
    Replaced: "replaced", "the origin sent another response";
    Failed: "failed", "the origin gave no answer";
}
