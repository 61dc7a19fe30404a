//! Does a pattern describe a machine's model?
//!
//! Invariant: pure, and linear in the text for each `*` of the pattern.

/// Does a pattern with `*` and `?` describe the whole model, or is it, without them, a part of it? Letters
/// count regardless of their case.
pub fn is_model(pattern: &str, model: &str) -> bool {
    let (pattern, model) = (pattern.to_lowercase(), model.to_lowercase());
    match pattern.contains(['*', '?']) {
        true => glob(&pattern.chars().collect::<Vec<_>>(), &model.chars().collect::<Vec<_>>()),
        false => model.contains(&pattern),
    }
}

fn glob(pattern: &[char], text: &[char]) -> bool {
    // The places after the last '*' in both, from where to try again.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}
