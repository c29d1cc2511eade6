//! A command's options: `--name`, or `--name VALUE`.

use std::str::FromStr;

/// An option that a command knows.
pub(crate) struct Opt {
    /// With its dashes.
    pub(crate) name: &'static str,
    /// What stands for its value in the usage; `None` where it takes none.
    pub(crate) value: Option<&'static str>,
    pub(crate) what: &'static str,
}

impl Opt {
    pub(crate) fn shown(&self) -> String {
        match self.value {
            Some(value) => format!("{} {value}", self.name),
            None => self.name.to_owned(),
        }
    }
}

/// What was given.
#[derive(Debug)]
pub(crate) struct Options(Vec<(&'static str, String)>);

impl Options {
    /// Unknown options, missing values and repetitions are errors.
    pub(crate) fn read(known: &[Opt], given: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut given = given.into_iter();
        let mut options = Vec::new();
        while let Some(name) = given.next() {
            let Some(option) = known.iter().find(|option| option.name == name) else {
                let known: Vec<_> = known.iter().map(Opt::shown).collect();
                return Err(if known.is_empty() {
                    format!("{name}: it has no options")
                } else {
                    format!("{name}: unknown; the options are {}", known.join(", "))
                });
            };
            if options.iter().any(|(earlier, _)| *earlier == option.name) {
                return Err(format!("{name}: given twice"));
            }
            let value = match option.value {
                Some(what) => given.next().ok_or_else(|| format!("{name}: {what} is missing"))?,
                None => String::new(),
            };
            options.push((option.name, value));
        }
        Ok(Self(options))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(given, _)| *given == name)
    }

    pub(crate) fn value<T: FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let given = self.0.iter().find(|(given, _)| *given == name);
        given
            .map(|(_, value)| {
                value
                    .parse()
                    .map_err(|_| format!("{name}: {value:?} is no such value"))
            })
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Opt; 2] = [
        Opt {
            name: "--minutes",
            value: Some("N"),
            what: "",
        },
        Opt {
            name: "--quick",
            value: None,
            what: "",
        },
    ];

    fn read(given: &[&str]) -> Result<Options, String> {
        Options::read(&KNOWN, given.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn options_are_read() {
        let options = read(&["--quick", "--minutes", "2.5"]).unwrap();
        assert!(options.has("--quick"));
        assert_eq!(options.value("--minutes"), Ok(Some(2.5)));
        assert_eq!(read(&[]).unwrap().value::<f64>("--minutes"), Ok(None));
        assert!(!read(&[]).unwrap().has("--quick"));
    }

    #[test]
    fn slips_are_told() {
        for (given, told) in [
            (&["--minute", "1"][..], "--minutes N, --quick"),
            (&["--minutes"], "N is missing"),
            (&["--quick", "--quick"], "twice"),
            (&["fast"], "unknown"),
        ] {
            let error = read(given).unwrap_err();
            assert!(error.contains(told), "{given:?}: {error}");
        }
        let error = read(&["--minutes", "soon"])
            .unwrap()
            .value::<f64>("--minutes")
            .unwrap_err();
        assert!(error.contains("soon"), "{error}");
        let none = Options::read(&[], ["--quick".to_owned()]).unwrap_err();
        assert!(none.contains("no options"), "{none}");
    }
}
