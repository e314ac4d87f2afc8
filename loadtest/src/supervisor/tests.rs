//! Secrets stay out of reports.

use super::command;

#[test]
fn the_token_key_is_redacted_in_both_spellings() {
    let shown = |words: &[&str]| command(words.iter().map(|word| (*word).to_owned()));
    assert_eq!(
        shown(&[
            "sallyport",
            "loadtest",
            "--token-key",
            "-secret",
            "--rate",
            "5"
        ]),
        "sallyport loadtest --token-key REDACTED --rate 5"
    );
    assert_eq!(
        shown(&["sallyport", "--token-key=secret", "--key", "public"]),
        "sallyport --token-key=REDACTED --key public"
    );
}
