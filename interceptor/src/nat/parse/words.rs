//! The words of a line, as `iptables-restore` tells them apart (`add_param_to_argv` of iptables' `xshared.c`).

/// Splits at blanks. Between double quotes blanks belong to the word, and a backslash takes the next character as it
/// is. Nothing else is special, as it would be to a shell: interfaces may be named `#` or `'`.
///
/// `None` if a quotation mark is not closed.
pub(super) fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    let mut is_quoted = false;
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            '\\' if is_quoted => word.get_or_insert_default().push(characters.next()?),
            ' ' | '\t' if !is_quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    (!is_quoted).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn only_blanks_and_double_quotes_are_special() {
        assert_eq!(words(r"-i #; -o '  \").expect("closed"), ["-i", "#;", "-o", "'", r"\"]);
        assert_eq!(
            words(r#"--comment "it\'s \"one\" word" "" x"#).expect("closed"),
            ["--comment", r#"it's "one" word"#, "", "x"]
        );
        assert_eq!(words(r#"--comment "open"#), None);
        assert_eq!(words(r#"--comment "open\"#), None);
    }
}
