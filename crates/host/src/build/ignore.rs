//! `.dockerignore`: which paths of a build context stay at home.
//!
//! The rules are Docker's: patterns in order, the last one that matches a path or one of
//! its parents decides; `!` makes an exception; `*`, `?` and `[…]` as in Go's
//! `filepath.Match`, and `**` for any number of directories.

/// Why a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPattern {
    /// Line in the file, from 1.
    pub line: usize,
    /// The line as written.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// The patterns of one ignore file.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    exception: bool,
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// One certain character.
    Literal(char),
    /// `?`: one character but `/`.
    One,
    /// `*`: any characters but `/`.
    Star,
    /// `[…]`: one character of a set.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `**/`: nothing, or anything up to and with a `/`.
    Directories,
    /// `**` at the end: anything.
    Anything,
}

impl Ignore {
    /// Reads the text of an ignore file.
    ///
    /// # Errors
    /// A line is no pattern.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for (index, written) in text.lines().enumerate() {
            // A comment starts in the first column: Docker takes " #x" for a pattern.
            if written.starts_with('#') || written.trim().is_empty() {
                continue;
            }
            let rule = Rule::parse(written.trim()).map_err(|reason| BadPattern {
                line: index + 1,
                text: written.to_owned(),
                reason,
            })?;
            rules.push(rule);
        }
        Ok(Self { rules })
    }

    /// Adds a last rule: this very path is not ignored.
    pub(super) fn keep(&mut self, path: &str) {
        let tokens = path.chars().map(Token::Literal).collect();
        self.rules.push(Rule {
            exception: true,
            tokens,
        });
    }

    /// Which rules match `path` itself or, as `parent` says, a directory above it.
    pub(super) fn hits(&self, parent: &[bool], path: &str) -> Vec<bool> {
        let path: Vec<char> = path.chars().collect();
        let above = parent.iter().copied().chain(std::iter::repeat(false));
        self.rules
            .iter()
            .zip(above)
            .map(|(rule, hit)| hit || rule.matches(&path))
            .collect()
    }

    /// Whether a path with these hits is ignored: the last rule that hit decides.
    pub(super) fn decides(&self, hits: &[bool]) -> bool {
        let last = self.rules.iter().zip(hits).rev().find(|(_, hit)| **hit);
        last.is_some_and(|(rule, _)| !rule.exception)
    }

    /// Whether `path` (slashes, relative to the context) is ignored.
    #[must_use]
    pub fn ignores(&self, path: &str) -> bool {
        let ends = path
            .match_indices('/')
            .map(|(at, _)| at)
            .chain([path.len()]);
        let hits = ends.fold(Vec::new(), |hits, end| self.hits(&hits, &path[..end]));
        self.decides(&hits)
    }

    /// Whether an exception might bring back something inside the ignored directory `dir`.
    pub(super) fn may_keep_inside(&self, dir: &str) -> bool {
        let prefix: Vec<char> = dir.chars().chain(['/']).collect();
        self.rules
            .iter()
            .any(|rule| rule.exception && rule.may_start_with(&prefix))
    }
}

impl Rule {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (exception, text) = match text.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, text),
        };
        if text.is_empty() {
            return Err("a \"!\" must be followed by a pattern");
        }
        Ok(Self {
            exception,
            tokens: tokens(&clean(text))?,
        })
    }

    fn matches(&self, path: &[char]) -> bool {
        let end = self
            .tokens
            .iter()
            .try_fold(vec![0], |at, token| advance(token, &at, path));
        end.is_some_and(|at| at.last() == Some(&path.len()))
    }

    /// Whether some path that begins with `prefix` can match.
    fn may_start_with(&self, prefix: &[char]) -> bool {
        let mut at = vec![0];
        for token in &self.tokens {
            match advance(token, &at, prefix) {
                Some(next) if next.last() == Some(&prefix.len()) => return true,
                Some(next) => at = next,
                None => return false,
            }
        }
        false
    }
}

/// Where in `path` a match may go on after `token`, when it could be at any of `from`.
/// Both lists ascend; `None` says that there is no such place.
fn advance(token: &Token, from: &[usize], path: &[char]) -> Option<Vec<usize>> {
    let one = |accepts: &dyn Fn(char) -> bool| -> Vec<usize> {
        let there = from
            .iter()
            .filter(|at| path.get(**at).is_some_and(|c| accepts(*c)));
        there.map(|at| at + 1).collect()
    };
    let next = match token {
        Token::Literal(wanted) => one(&|c| c == *wanted),
        Token::One => one(&|c| c != '/'),
        Token::Class { negated, ranges } => {
            one(&|c| ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated)
        }
        Token::Star => {
            let mut open = false;
            let mut next = Vec::new();
            for at in from.first().copied()?..=path.len() {
                open |= from.binary_search(&at).is_ok();
                if open {
                    next.push(at);
                }
                open &= path.get(at).is_some_and(|c| *c != '/');
            }
            next
        }
        Token::Directories => {
            let first = from.first().copied()?;
            let slashes = (first + 1..=path.len()).filter(|at| path[at - 1] == '/');
            let mut next: Vec<usize> = from.iter().copied().chain(slashes).collect();
            next.sort_unstable();
            next.dedup();
            next
        }
        Token::Anything => (from.first().copied()?..=path.len()).collect(),
    };
    (!next.is_empty()).then_some(next)
}

/// A path without `.`, `..`, doubled, leading and trailing slashes, as Go's `filepath.Clean`.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if path.starts_with('/') && parts.is_empty() => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        ".".to_owned()
    } else {
        parts.join("/")
    }
}

fn tokens(pattern: &str) -> Result<Vec<Token>, &'static str> {
    let mut rest = pattern.chars().peekable();
    let mut tokens = Vec::new();
    // "**name", with nothing special in the name, matches every path that ends so.
    let mut suffix = pattern.starts_with("**") && !pattern.starts_with("**/");
    while let Some(c) = rest.next() {
        let first = tokens.is_empty();
        let token = match c {
            '*' if rest.next_if_eq(&'*').is_some() => {
                rest.next_if_eq(&'/');
                if rest.peek().is_none() {
                    Token::Anything
                } else {
                    Token::Directories
                }
            }
            '*' => Token::Star,
            '?' => Token::One,
            '[' => class(&mut rest)?,
            '\\' => {
                suffix = false;
                Token::Literal(rest.next().ok_or("nothing follows the \"\\\" at its end")?)
            }
            c => Token::Literal(c),
        };
        suffix &= first || matches!(token, Token::Literal(_));
        tokens.push(token);
    }
    if suffix && let Some(first) = tokens.first_mut() {
        *first = Token::Anything;
    }
    Ok(tokens)
}

/// The rest of a `[…]` after its bracket.
fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, &'static str> {
    const OPEN: &str = "a \"[\" has no matching \"]\"";
    const BAD: &str = "a \"-\" or \"]\" inside \"[…]\" needs a \"\\\" before it";
    fn one(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, &'static str> {
        match rest.next().ok_or(OPEN)? {
            '-' | ']' => Err(BAD),
            '\\' => rest.next().ok_or(OPEN),
            c => Ok(c),
        }
    }
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while ranges.is_empty() || rest.next_if_eq(&']').is_none() {
        let low = one(rest)?;
        let high = if rest.next_if_eq(&'-').is_some() {
            one(rest)?
        } else {
            low
        };
        ranges.push((low, high));
    }
    Ok(Token::Class { negated, ranges })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ignores(patterns: &[&str], path: &str) -> bool {
        Ignore::parse(&patterns.join("\n")).unwrap().ignores(path)
    }

    #[test]
    fn one_pattern() {
        let cases: &[(&str, &str, bool)] = &[
            ("**", "a/b", true),
            ("**/", "a", true),
            ("**/**", "a/b", true),
            ("dir/**", "dir/a/b", true),
            ("dir/**", "dir", false),
            ("**/dir", "dir", true),
            ("**/dir", "a/b/dir/file", true),
            ("**/dir", "a/xdir", false),
            ("**/dir2/*", "dir/dir2/file", true),
            ("**/dir2/**", "dir/dir2/dir3/file", true),
            ("**file", "dir/file", true),
            ("**file", "dir/myfile", true),
            ("**file*", "dir/myfile", false),
            ("**/*.txt", "a.txt", true),
            ("**/**/*.txt", "a/b/c.txt", true),
            ("**/*.txt", "a/b.txt2", false),
            ("a**/*.txt", "a/dir/dir/file.txt", true),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z", true),
            ("a/**/z", "a/bz", false),
            ("a/*.txt", "a/b/c.txt", false),
            ("a/*.txt**", "a/file.txt", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*/b", "a/c/b", false),
            ("*", "a/b", true),
            ("*/*/x", "a/b/x/y", true),
            ("?.c", "a.c", true),
            ("?.c", "ab.c", false),
            ("a?b", "a/b", false),
            ("a?b", "a☺b", true),
            ("a[b-d]e", "ace", true),
            ("a[b-d]e", "aae", false),
            ("a[^b-d]e", "aze", true),
            ("[a-ζ]*", "α", true),
            ("[\\]a]", "]", true),
            ("[x\\-]", "-", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("\\#x", "#x", true),
            ("\\!x", "!x", true),
            ("abc.def", "abcZdef", false),
            ("a(b)+{c}|$", "a(b)+{c}|$", true),
            // Cleaned before use.
            ("/docs/", "docs/a", true),
            ("./docs//x/../y", "docs/y", true),
            ("  docs \r", "docs", true),
            ("../docs", "docs", false),
            (".", "docs", false),
            ("/", "docs", false),
            ("doc", "docs", false),
            ("docs", "x/docs", false),
            // Comments only in the first column.
            ("#x", "#x", false),
            (" #x", "#x", true),
            ("\u{feff}docs", "docs", true),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(
                ignores(&[pattern], path),
                *expected,
                "{pattern:?} on {path:?}"
            );
        }
    }

    #[test]
    fn order_and_exceptions() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&["docs", "!docs/README.md"], "docs/README.md", false),
            (&["docs", "!docs/README.md"], "docs/other", true),
            (&["!docs/README.md", "docs"], "docs/README.md", true),
            (
                &["*.md", "!README*.md", "README-secret.md"],
                "README-secret.md",
                true,
            ),
            (
                &["*.md", "!README*.md", "README-secret.md"],
                "README-x.md",
                false,
            ),
            (
                &["*.md", "README-secret.md", "!README*.md"],
                "README-secret.md",
                false,
            ),
            (&["**", "!a/b"], "a/b/c", false),
            (&["**", "!a/b", "a/b/c"], "a/b/c", true),
            (&["**", "! /a/b/"], "a/b", false),
            (&["*", "!**/*.rs"], "src/deep/x.rs", false),
            (&["", "# all", "x"], "y", false),
        ];
        for (patterns, path, expected) in cases {
            assert_eq!(
                ignores(patterns, path),
                *expected,
                "{patterns:?} on {path:?}"
            );
        }
    }

    #[test]
    fn where_exceptions_may_be() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&["docs", "!docs/README.md"], "docs", true),
            (&["docs", "!docs/a/b"], "docs/a", true),
            (&["docs", "!docs/a/b"], "docs/c", false),
            (&["*", "!d*/x"], "docs", true),
            (&["*", "!d*/x"], "src", false),
            (&["*", "!**/x"], "any/where", true),
            (&["*", "!*.md"], "docs", false),
            (&["*", "docs/x"], "docs", false),
        ];
        for (patterns, dir, expected) in cases {
            let ignore = Ignore::parse(&patterns.join("\n")).unwrap();
            assert_eq!(
                ignore.may_keep_inside(dir),
                *expected,
                "{patterns:?} in {dir:?}"
            );
        }
    }

    #[test]
    fn bad_patterns() {
        for bad in [
            "!", "[", "a[", "[^bc", "[]a]", "[-]", "[x-]", "[a-b-c]", "a\\",
        ] {
            let fault = Ignore::parse(&format!("ok\n{bad}")).unwrap_err();
            assert_eq!((fault.line, fault.text.as_str()), (2, bad));
        }
    }

    #[test]
    fn a_kept_path_is_taken_literally() {
        let mut ignore = Ignore::parse("*").unwrap();
        ignore.keep("a[1]/Dockerfile*");
        assert!(!ignore.ignores("a[1]/Dockerfile*"));
        assert!(ignore.ignores("a[1]/other"));
        assert!(ignore.may_keep_inside("a[1]"));
    }
}
