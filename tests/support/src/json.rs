//! JSON (RFC 8259), read strictly, to judge what the program writes.

use std::collections::BTreeMap;
use std::ops::Index;

/// A value of JSON.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    Array(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    /// The one value that `text` is.
    #[track_caller]
    pub fn read(text: &str) -> Self {
        let mut reader = Reader { text, rest: text };
        let value = reader.value();
        reader.skip_space();
        reader.assert(reader.rest.is_empty(), "the end");
        value
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        let Self::Text(text) = self else { panic!("a string, not {self:?}") };
        text
    }

    #[track_caller]
    pub fn number(&self) -> f64 {
        let Self::Number(number) = self else { panic!("a number, not {self:?}") };
        *number
    }

    #[track_caller]
    pub fn array(&self) -> &[Self] {
        let Self::Array(values) = self else { panic!("an array, not {self:?}") };
        values
    }

    /// Names of the members of an object.
    #[track_caller]
    pub fn keys(&self) -> Vec<&str> {
        let Self::Object(members) = self else { panic!("an object, not {self:?}") };
        members.keys().map(String::as_str).collect()
    }
}

impl Index<&str> for Json {
    type Output = Self;

    #[track_caller]
    fn index(&self, name: &str) -> &Self {
        let Self::Object(members) = self else { panic!("an object, not {self:?}") };
        members.get(name).unwrap_or_else(|| panic!("no member {name} in {members:?}"))
    }
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
}

impl Reader<'_> {
    #[track_caller]
    fn assert(&self, is_so: bool, expected: &str) {
        assert!(is_so, "{expected} was expected at {:?} of {}", self.rest, self.text);
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn takes(&mut self, word: &str) -> bool {
        let rest = self.rest.strip_prefix(word);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    #[track_caller]
    fn value(&mut self) -> Json {
        self.skip_space();
        for (word, value) in
            [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))]
        {
            if self.takes(word) {
                return value;
            }
        }
        match self.rest.chars().next() {
            Some('"') => Json::Text(self.string()),
            Some('[') => {
                let mut values = Vec::new();
                self.list('[', ']', |reader| values.push(reader.value()));
                Json::Array(values)
            }
            Some('{') => {
                let mut members = BTreeMap::new();
                self.list('{', '}', |reader| {
                    reader.skip_space();
                    let name = reader.string();
                    reader.skip_space();
                    let colon = reader.takes(":");
                    reader.assert(colon, "a colon");
                    let value = reader.value();
                    assert_eq!(members.insert(name.clone(), value), None, "{name} is there twice");
                });
                Json::Object(members)
            }
            _ => self.number(),
        }
    }

    #[track_caller]
    fn list(&mut self, open: char, close: char, mut item: impl FnMut(&mut Self)) {
        let opened = self.takes(&open.to_string());
        self.assert(opened, "a list");
        self.skip_space();
        if self.takes(&close.to_string()) {
            return;
        }
        loop {
            item(self);
            self.skip_space();
            if self.takes(&close.to_string()) {
                return;
            }
            let comma = self.takes(",");
            self.assert(comma, "a comma");
        }
    }

    #[track_caller]
    fn number(&mut self) -> Json {
        let is_end = |c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E');
        let end = self.rest.find(is_end).unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        let digits = number.trim_start_matches('-');
        let begins_well = digits.starts_with(|c: char| c.is_ascii_digit())
            && !(digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit()));
        self.assert(begins_well && !number.ends_with('.'), "a value");
        let value = number.parse().unwrap_or_else(|_| panic!("a number, not {number}"));
        self.rest = rest;
        Json::Number(value)
    }

    #[track_caller]
    fn string(&mut self) -> String {
        let opened = self.takes("\"");
        self.assert(opened, "a string");
        let mut text = String::new();
        loop {
            let mut chars = self.rest.chars();
            let Some(char) = chars.next() else {
                panic!("a string without an end in {}", self.text)
            };
            self.rest = chars.as_str();
            match char {
                '"' => return text,
                '\\' => text.push(self.escaped()),
                char => {
                    assert!(char >= ' ', "a control character in {}", self.text);
                    text.push(char);
                }
            }
        }
    }

    #[track_caller]
    fn escaped(&mut self) -> char {
        let mut chars = self.rest.chars();
        let char = chars.next().unwrap_or_default();
        self.rest = chars.as_str();
        match char {
            '"' | '\\' | '/' => char,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (digits, rest) = self.rest.split_at(4);
                self.rest = rest;
                let code = u32::from_str_radix(digits, 16).expect("four digits");
                char::from_u32(code).expect("no half of a character")
            }
            other => panic!("\\{other} in {}", self.text),
        }
    }
}
