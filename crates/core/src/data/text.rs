//! The texts of the core's errors and hints. They mark the names of options, arguments and methods, so that each
//! language can spell them its own way: `base_url` is `baseUrl` in JavaScript.

use std::fmt::Display;
use std::ops::Range;

use crate::data::outside::printable;

/// The names that a [`Template`] can mark, in the spelling of Rust and Python: options, arguments, methods and fields
/// of an error. The platform's words are not marked: `open_id`, or `tenant_access_token` where it is not the option.
const NAMES: [&str; 32] = [
    "allow_http",
    "app_id",
    "app_secret",
    "app_ticket",
    "attempt_timeout",
    "base_url",
    "ca_certs",
    "concurrency",
    "connect_timeout",
    "feed_card_id",
    "field_violations",
    "from_env",
    "http_client",
    "late_arrival",
    "max_users_per_request",
    "proxy",
    "quota",
    "rate_limit",
    "refused_token",
    "retry_after",
    "set_app_ticket",
    "set_bot_time_sensitive",
    "tag",
    "tenant_access_token",
    "tenant_key",
    "time_sensitive",
    "timeout",
    "token_provider",
    "total_timeout",
    "user_agent",
    "user_id_type",
    "user_ids",
];

/// Longest value in a text, in characters. It has room for a quotation and the words around it.
const MAX_VALUE: usize = 2000;

/// Returns a language's spelling of a name.
pub(crate) type Spelling = fn(&str) -> String;

/// A text with marked names. A string that is converted [`into`](From) a text has no marked names, even if it contains
/// braces, because it may come from outside.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    /// Printable, with the names in the spelling of Rust and Python.
    text: String,
    /// The positions of the marked names, in order.
    names: Vec<Range<usize>>,
}

/// A sentence with names in braces and `{}` for each value, made by [`text!`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Template(&'static str);

/// Makes a [`Template`], `text!("Check {base_url}")`, or with values a [`Text`], `text!("{user_ids}[{}]", index)`. Does
/// not compile with an unknown name, or with a number of values that differs from the number of `{}`.
macro_rules! text {
    ($template:literal) => {
        const { $crate::data::text::Template::new($template, 0) }
    };
    ($template:literal, $($value:expr),+ $(,)?) => {
        const { $crate::data::text::Template::new($template, [$(stringify!($value)),+].len()) }
            .fill(&[$(&$value),+])
    };
}
pub(crate) use text;

impl Template {
    pub(crate) const fn new(template: &'static str, values: usize) -> Self {
        let bytes = template.as_bytes();
        let mut found = 0;
        let mut at = 0;
        while at < bytes.len() {
            assert!(bytes[at] != b'}', "a closing brace without an opening one");
            if bytes[at] == b'{' {
                let start = at + 1;
                while bytes[at] != b'}' {
                    at += 1;
                }
                if at == start {
                    found += 1;
                } else {
                    assert!(is_name(bytes, start, at), "an unknown name in braces");
                }
            }
            at += 1;
        }
        assert!(
            found == values,
            "the number of values differs from the number of empty braces"
        );
        Self(template)
    }

    pub(crate) fn fill(self, values: &[&dyn Display]) -> Text {
        let mut values = values.iter();
        let mut filled = Text::default();
        let mut rest = self.0;
        while let Some((plain, after)) = rest.split_once('{')
            && let Some((name, after)) = after.split_once('}')
        {
            filled.text.push_str(plain);
            if !name.is_empty() {
                let start = filled.text.len();
                filled.text.push_str(name);
                filled.names.push(start..filled.text.len());
            } else if let Some(value) = values.next() {
                filled.push(value.to_string());
            }
            rest = after;
        }
        filled.text.push_str(rest);
        filled
    }
}

/// Whether these bytes are one of [`NAMES`].
const fn is_name(bytes: &[u8], start: usize, end: usize) -> bool {
    let mut index = 0;
    while index < NAMES.len() {
        let name = NAMES[index].as_bytes();
        let mut same = 0;
        while same < name.len() && start + same < end && name[same] == bytes[start + same] {
            same += 1;
        }
        if same == name.len() && start + same == end {
            return true;
        }
        index += 1;
    }
    false
}

impl Text {
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn push(&mut self, more: impl Into<Self>) {
        let more = more.into();
        let start = self.text.len();
        self.text.push_str(&more.text);
        let names = more.names.into_iter();
        self.names
            .extend(names.map(|name| start + name.start..start + name.end));
    }

    /// Returns the text with its names in another spelling.
    pub(crate) fn spelled(&self, spelling: Spelling) -> String {
        let mut spelled = String::with_capacity(self.text.len());
        let mut end = 0;
        for name in &self.names {
            spelled.push_str(&self.text[end..name.start]);
            spelled.push_str(&spelling(&self.text[name.clone()]));
            end = name.end;
        }
        spelled.push_str(&self.text[end..]);
        spelled
    }
}

impl From<Template> for Text {
    fn from(template: Template) -> Self {
        template.fill(&[])
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self {
            text: printable(text, MAX_VALUE),
            names: Vec::new(),
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn uppercase(name: &str) -> String {
        name.to_uppercase()
    }

    #[test]
    fn only_marked_names_change_their_spelling() {
        let text = Text::from(text!("Check {base_url}, or base_url"));
        assert_eq!(text.as_str(), "Check base_url, or base_url");
        assert_eq!(text.spelled(uppercase), "Check BASE_URL, or base_url");
    }

    #[test]
    fn braces_in_a_value_mark_no_name() {
        let mut text = text!("{user_ids}[{}]: {}", 3, "{base_url}");
        text.push(" {timeout}");
        text.push(text!("; {timeout}"));
        assert_eq!(text.as_str(), "user_ids[3]: {base_url} {timeout}; timeout");
        assert_eq!(
            text.spelled(uppercase),
            "USER_IDS[3]: {base_url} {timeout}; TIMEOUT"
        );
    }

    #[test]
    fn an_unknown_name_does_not_compile() {
        let is_known = |name: &str| is_name(name.as_bytes(), 0, name.len());
        assert!(NAMES.iter().all(|name| is_known(name)));
        for name in ["", "base", "base_urls", "baseUrl", "open_id"] {
            assert!(!is_known(name), "{name}");
        }
        for template in ["{base_urll}", "Check } it", "{base_url"] {
            assert!(
                std::panic::catch_unwind(|| Template::new(template, 0)).is_err(),
                "{template}"
            );
        }
        for values in [0, 2] {
            assert!(std::panic::catch_unwind(|| Template::new("{} of {base_url}", values)).is_err());
        }
    }

    /// Returns the string literals of a source file, without comments, tests and the marked names of templates. A
    /// literal whose line ends with a backslash continues on the next line.
    fn literals(source: &str) -> Vec<String> {
        let product = source.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines = product.lines().map(str::trim);
        let mut literals = vec![String::new()];
        let mut is_inside = false;
        for line in lines.filter(|line| !line.starts_with("//") && !line.contains("'\"'")) {
            for (index, piece) in line.split('"').enumerate() {
                if index > 0 {
                    is_inside = !is_inside;
                    literals.push(String::new());
                }
                if is_inside {
                    let mut pieces = piece.split('{');
                    let last = literals.last_mut().unwrap();
                    last.extend(pieces.next());
                    last.extend(pieces.filter_map(|piece| Some(piece.split_once('}')?.1)));
                }
            }
            is_inside &= line.ends_with('\\');
        }
        literals
    }

    #[test]
    fn no_sentence_names_an_option_without_braces() {
        let mut folders = vec![Path::new("src").to_owned()];
        let mut sentences = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.ends_with("simulation") {
                    folders.push(path);
                } else if path.is_file() {
                    let source = fs::read_to_string(&path).unwrap();
                    for sentence in literals(&source).iter().filter(|literal| literal.contains(' ')) {
                        sentences += 1;
                        let mut words =
                            sentence.split(|letter: char| letter != '_' && !letter.is_ascii_lowercase());
                        // `time_sensitive` is part of the platform's scope. Names without an underscore are also
                        // English words.
                        let is_platform_word =
                            |word: &str| ["tenant_access_token", "time_sensitive"].contains(&word);
                        let is_option = |word: &&str| {
                            word.contains('_') && !is_platform_word(word) && NAMES.contains(word)
                        };
                        let found = words.find(is_option);
                        assert_eq!(found, None, "{}: {sentence}", path.display());
                    }
                }
            }
        }
        assert!(sentences > 100, "only {sentences} sentences were found");
    }

    #[test]
    fn every_name_is_public() {
        const PUBLIC: [&str; 6] = [
            include_str!("../options.rs"),
            include_str!("../client.rs"),
            include_str!("../many.rs"),
            include_str!("error.rs"),
            include_str!("input.rs"),
            include_str!("../stations/token/provider.rs"),
        ];
        for name in NAMES {
            let [method, field] = [format!("pub fn {name}("), format!("pub {name}: ")];
            let is_used = PUBLIC
                .iter()
                .any(|file| file.contains(&method) || file.contains(&field));
            assert!(is_used, "{name} is not a public method or field");
        }
    }
}
