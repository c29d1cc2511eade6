//! The choice of a proxy: by the option `proxy`, the environment, or the system's settings. The choice is made and the
//! URL is parsed when the client is built, because the libraries below would connect directly if they could not parse
//! the URL.

use std::fmt::Write as _;

use ipnet::IpNet;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::host;
use crate::data::error::Error;
use crate::data::input::shown;
use crate::data::text::{Template, text};

/// The option `proxy`.
#[derive(Clone, Default)]
pub(crate) enum ProxyOption {
    /// The proxy of the environment variables, or on macOS and Windows the system's if no variable is set.
    #[default]
    Environment,
    Off,
    Url(SecretString),
}

/// How requests reach the platform.
pub(super) enum Route {
    Direct,
    Through(Proxy),
    /// As the system's settings say. reqwest reads them.
    System,
}

/// A proxy with a valid URL.
#[derive(Debug)]
pub(super) struct Proxy {
    /// The URL for reqwest, with percent-encoded credentials.
    url: SecretString,
    /// The URL for errors, without credentials.
    pub(super) name: String,
    host: String,
}

impl Proxy {
    pub(super) fn to_reqwest(&self) -> reqwest::Result<reqwest::Proxy> {
        reqwest::Proxy::all(self.url.expose_secret())
    }

    pub(super) fn is_socks(&self) -> bool {
        self.name.starts_with("socks")
    }

    /// Whether the client resolves the platform's name and sends the proxy an address.
    pub(super) fn needs_address(&self) -> bool {
        self.name.starts_with("socks4:") || self.name.starts_with("socks5:")
    }
}

const FIELD: Template = text!("{proxy}");
const EXPECTED: &str = "a URL like http://host:port, socks5h://host:port or http://user:password@host:port, with all but \
                        letters and digits of the password percent-encoded, as %40 for @";

/// Returns the route to the platform. Returns an error if the option or the variable that applies is invalid.
pub(super) fn route(option: &ProxyOption, platform: &Url, allow_http: bool) -> Result<Route, Error> {
    let variable = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let proxy = match option {
        ProxyOption::Off => None,
        ProxyOption::Url(url) => {
            let invalid = |why| Error::invalid_input(FIELD, text!("not a proxy's URL: {}", why), EXPECTED);
            Some(parse(url.expose_secret()).map_err(invalid)?)
        }
        // A platform on this machine needs no proxy, and a proxy on another host could not reach it.
        ProxyOption::Environment if host::is_loopback(host::host(platform)) => None,
        ProxyOption::Environment => match from_environment(platform, &variable)? {
            Configured::Nothing if cfg!(any(target_os = "macos", windows)) => return Ok(Route::System),
            Configured::Nothing | Configured::Exempt => None,
            Configured::Proxy(proxy) => Some(proxy),
        },
    };
    let Some(proxy) = proxy else {
        return Ok(Route::Direct);
    };
    if host::is_http(platform) && !allow_http && !host::is_loopback(&proxy.host) {
        return Err(Error::invalid_input(
            FIELD,
            text!("{} would receive requests over http", shown(&proxy.name)),
            text!(
                "a proxy on this machine or an https {base_url}, because http sends the token unencrypted; {allow_http} \
                 permits it"
            ),
        ));
    }
    Ok(Route::Through(proxy))
}

/// The proxy configuration in the environment variables.
enum Configured {
    /// No variable is set.
    Nothing,
    /// `NO_PROXY` exempts the host.
    Exempt,
    Proxy(Proxy),
}

fn from_environment(platform: &Url, variable: &dyn Fn(&str) -> Option<String>) -> Result<Configured, Error> {
    // For a CGI script, a web server sets HTTP_PROXY to the `Proxy` header of the incoming request (CVE-2016-5385).
    let is_cgi = variable("REQUEST_METHOD").is_some();
    let names: &[&str] = if !host::is_http(platform) {
        &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
    } else if !is_cgi {
        &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
    } else if cfg!(windows) {
        // The names of variables have no case there: `http_proxy` is the same one.
        &["ALL_PROXY"]
    } else {
        &["http_proxy", "ALL_PROXY", "all_proxy"]
    };
    let first_set = |names: &[&'static str]| {
        let mut set = names.iter().filter_map(|name| Some((*name, variable(name)?)));
        set.find(|(_, value)| !value.is_empty())
    };
    // NO_PROXY also applies to the system's settings, so check it first.
    if let Some((_, exempt)) = first_set(&["NO_PROXY", "no_proxy"])
        && is_exempt(&exempt, platform)
    {
        return Ok(Configured::Exempt);
    }
    let Some((name, value)) = first_set(names) else {
        return Ok(Configured::Nothing);
    };
    match parse(&value) {
        Ok(proxy) => Ok(Configured::Proxy(proxy)),
        Err(why) => Err(Error::invalid_input(
            FIELD,
            text!(
                "the environment variable {} is {}, not a proxy's URL: {}",
                name,
                masked(&value),
                why
            ),
            EXPECTED,
        )
        .with_hint(text!(
            "Correct {}, or disable proxies with the option {proxy}",
            name
        ))),
    }
}

/// The value, with the parts masked that may be a password: everything before the last `@`, or if there is none, an
/// invalid port, because the host may be missing.
fn masked(value: &str) -> String {
    let is_scheme = |scheme: &str| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let (scheme, rest) = match value.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => (format!("{scheme}://"), rest),
        _ => (String::new(), value),
    };
    if let Some((_, authority)) = rest.rsplit_once('@') {
        let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || ".-_:[]".contains(letter);
        let end = authority
            .find(|letter| !is_allowed(letter))
            .unwrap_or(authority.len());
        return shown(&format!("{scheme}[secret]@{}", &authority[..end]));
    }
    match rest.split_once(':') {
        Some((host, port)) if port.trim_end_matches('/').parse::<u16>().is_err() => {
            shown(&format!("{scheme}{host}:[secret]"))
        }
        _ => shown(value),
    }
}

/// The longest user name and the longest password in SOCKS5, in bytes (RFC 1929).
const MAX_SOCKS5_CREDENTIAL: usize = 255;

/// Parses a proxy's URL. The error says what is wrong without quoting the URL, which may contain a password.
fn parse(text: &str) -> Result<Proxy, &'static str> {
    if text.starts_with(['"', '\'']) {
        return Err("it has quotes around it");
    }
    if text.trim() != text || text.contains(char::is_control) {
        return Err("it begins or ends with whitespace, or contains a control character");
    }
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme.to_ascii_lowercase(), rest),
        None => ("http".to_owned(), text),
    };
    let scheme = match &*scheme {
        "socks" => "socks5h",
        "http" | "https" | "socks4" | "socks4a" | "socks5" | "socks5h" => &scheme,
        _ => return Err("its scheme is not http, https, socks4, socks4a, socks5 or socks5h"),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (credentials, authority) = match rest.rsplit_once('@') {
        Some((credentials, authority)) => (Some(credentials), authority),
        None => (None, rest),
    };
    let (host, port) = host_and_port(authority)?;
    if port.is_none() && !text.contains("://") {
        return Err("it has neither a scheme nor a port");
    }
    let authority = port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
    let credentials = credentials.map(encode_credentials).transpose()?;
    if let Some(ProxyCredentials { user, password, .. }) = &credentials {
        match scheme {
            "socks4" | "socks4a" => return Err("it has a user name, which is not supported for SOCKS4"),
            "socks5" | "socks5h" if (*user).max(*password) > MAX_SOCKS5_CREDENTIAL => {
                return Err("its user name or password is longer than 255 bytes, the limit of SOCKS5");
            }
            _ => {}
        }
    }
    let credentials = credentials.map_or_else(String::new, |credentials| credentials.encoded + "@");
    let url = format!("{scheme}://{credentials}{authority}");
    // hyper-util parses the URL again with `http::Uri`, and would connect directly if that failed.
    if url.parse::<http::Uri>().is_err() {
        return Err("it cannot be read");
    }
    Ok(Proxy {
        url: url.into(),
        name: format!("{scheme}://{authority}"),
        host,
    })
}

/// Splits `host` or `host:port`. An IPv6 address keeps its brackets.
fn host_and_port(authority: &str) -> Result<(String, Option<u16>), &'static str> {
    const UNREADABLE: &str = "it cannot be read";

    if !authority.is_ascii() || authority.starts_with('/') || authority.ends_with(['/', ':']) {
        return Err(UNREADABLE);
    }
    // With `http` instead of the real scheme: `Url` does not parse hosts of schemes that it does not know.
    let url = Url::parse(&format!("http://{authority}")).map_err(|_| UNREADABLE)?;
    let host = url.host_str().unwrap_or_default();
    if !host::is_plain(host) || url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(UNREADABLE);
    }
    let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    Ok((host.to_owned(), port))
}

struct ProxyCredentials {
    /// `user:password`, with everything except letters and digits percent-encoded.
    encoded: String,
    /// Length of the decoded user name in bytes.
    user: usize,
    /// Length of the decoded password in bytes.
    password: usize,
}

/// Decodes credentials and encodes them strictly. Characters that a URL must encode are refused if they are not encoded:
/// an `@`, `/` or `#` might belong to the password or end it, and the rest of the password could become the host.
fn encode_credentials(credentials: &str) -> Result<ProxyCredentials, &'static str> {
    const UNRESERVED_AND_SUB_DELIMS: &[u8] = b"-._~!$&'()*+,;=";

    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let encode = |text: &str| {
        let mut encoded = String::new();
        let mut decoded = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            let byte = match byte {
                b'%' => {
                    let digits = [bytes.next()?, bytes.next()?];
                    let digits = std::str::from_utf8(&digits).ok()?;
                    u8::from_str_radix(digits, 16)
                        .ok()
                        .filter(|_| !digits.starts_with('+'))?
                }
                byte if byte.is_ascii_alphanumeric() || UNRESERVED_AND_SUB_DELIMS.contains(&byte) => byte,
                _ => return None,
            };
            decoded.push(byte);
            if byte.is_ascii_alphanumeric() {
                encoded.push(char::from(byte));
            } else {
                write!(encoded, "%{byte:02X}").ok()?;
            }
        }
        // The libraries below would replace bytes that are not UTF-8.
        std::str::from_utf8(&decoded).ok()?;
        Some((encoded, decoded))
    };
    let (Some((user, user_bytes)), Some((password, password_bytes))) = (encode(user), encode(password))
    else {
        return Err("its user name or password has characters that are not percent-encoded");
    };
    if user_bytes.contains(&b':') {
        return Err("its user name contains a colon, which separates the user name from the password");
    }
    Ok(ProxyCredentials {
        encoded: format!("{user}:{password}"),
        user: user_bytes.len(),
        password: password_bytes.len(),
    })
}

/// Whether a value of `NO_PROXY` exempts the platform's host. Entries are separated by commas or whitespace. Each is `*`,
/// a name (which includes its subdomains, and may be written `.name` or `*.name`), an IP address or a network. All but
/// `*` may have a port.
fn is_exempt(no_proxy: &str, platform: &Url) -> bool {
    let host = host::host(platform).to_ascii_lowercase();
    let host = host.trim_end_matches('.');
    let address = host::address(host);
    let matches = |entry: &str| {
        if entry == "*" {
            return true;
        }
        let (name, port) = split_port(entry);
        if port.is_some_and(|port| Some(port) != platform.port_or_known_default()) {
            return false;
        }
        if let Some(address) = address {
            let network = name.parse::<IpNet>();
            return network.is_ok_and(|network| network.contains(&address))
                || host::address(name) == Some(address);
        }
        let name = name.strip_prefix('*').unwrap_or(name);
        let name = name.trim_matches('.').to_ascii_lowercase();
        let is_subdomain = host.strip_suffix(&*name).is_some_and(|rest| rest.ends_with('.'));
        !name.is_empty() && (host == name || is_subdomain)
    };
    no_proxy
        .split(|letter: char| letter == ',' || letter.is_whitespace())
        .filter(|entry| !entry.is_empty())
        .any(matches)
}

/// Splits an entry of `NO_PROXY` into host and port. An IPv6 address can have a port only after brackets.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<String, &'static str> {
        parse(text).map(|proxy| proxy.url.expose_secret().to_owned())
    }

    #[test]
    fn every_kind_of_proxy_url_is_parsed() {
        for (text, parsed) in [
            ("http://proxy:3128", "http://proxy:3128"),
            ("HTTP://Proxy:3128/", "http://proxy:3128"),
            ("https://proxy", "https://proxy"),
            ("proxy:3128", "http://proxy:3128"),
            ("socks://proxy:1080", "socks5h://proxy:1080"),
            ("socks5://proxy", "socks5://proxy"),
            ("socks5h://u:p@proxy", "socks5h://u:p@proxy"),
            ("socks4a://[::1]:1080", "socks4a://[::1]:1080"),
            ("http://127.0.0.1:80", "http://127.0.0.1:80"),
            ("http://me@proxy", "http://me:@proxy"),
            ("http://me:a%40%2f%25b@proxy", "http://me:a%40%2F%25b@proxy"),
            (
                "http://me:it's-(ok)!@proxy",
                "http://me:it%27s%2D%28ok%29%21@proxy",
            ),
        ] {
            assert_eq!(url(text).as_deref(), Ok(parsed), "{text}");
        }
    }

    #[test]
    fn invalid_urls_are_refused_and_not_quoted() {
        let long = format!("socks5h://u:{}@proxy", "a".repeat(256));
        for text in [
            "",
            "proxy",
            " http://proxy",
            "http://proxy ",
            "http://proxy\n",
            "\"http://proxy\"",
            "'http://proxy'",
            "ftp://proxy",
            "socks6://proxy",
            "http://",
            "http:///",
            "http:///proxy",
            "http://proxy:",
            "http://proxy:99999",
            "http://proxy:+80",
            "http://proxy/path",
            "http://proxy//",
            "http://proxy?a",
            "http://proxy#a",
            "http://{{proxy}}",
            "http://pro xy",
            "http://代理",
            "http://[::1].example.com",
            "http://me:hu sh@proxy",
            "http://me:hu[sh@proxy",
            "http://me:hu@sh@proxy",
            "http://me:hu/sh@proxy",
            "http://me:hu#sh@proxy",
            "http://me:hu?sh@proxy",
            "http://me:pass%@proxy",
            "http://me:pass%4@proxy",
            "http://me:pass%+4@proxy",
            "http://me:%ff@proxy",
            "http://a%3Ab:c@proxy",
            "socks4://me@proxy",
            "socks4a://me:hush@proxy",
            &long,
        ] {
            let why = url(text).expect_err(text);
            assert!(!why.contains("hu"), "{text}: {why}");
        }
    }

    fn platform(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn no_proxy_has_the_usual_forms() {
        for (no_proxy, host, exempt) in [
            ("*", "https://open.feishu.cn", true),
            ("feishu.cn", "https://open.feishu.cn", true),
            (".feishu.cn", "https://open.feishu.cn", true),
            ("*.feishu.cn", "https://open.feishu.cn", true),
            ("*.feishu.cn", "https://feishu.cn", true),
            ("FEISHU.cn.", "https://open.feishu.cn", true),
            ("eishu.cn", "https://open.feishu.cn", false),
            ("open.feishu.cn.example.com", "https://open.feishu.cn", false),
            ("a b,open.feishu.cn", "https://open.feishu.cn", true),
            ("open.feishu.cn:443", "https://open.feishu.cn", true),
            ("open.feishu.cn:8443", "https://open.feishu.cn", false),
            ("open.feishu.cn:8443", "https://open.feishu.cn:8443", true),
            ("10.0.0.0/8", "https://10.1.2.3", true),
            ("10.1.2.3:443", "https://10.1.2.3", true),
            ("10.0.0.0/8", "https://11.1.2.3", false),
            ("10.1.2.3", "https://10.1.2.3", true),
            ("fd00::/8", "https://[fd00::1]", true),
            ("[fd00::1]:443", "https://[fd00::1]", true),
            ("fd00::1", "https://[fd00::1]", true),
            ("", "https://open.feishu.cn", false),
            (" , ,.,*.", "https://open.feishu.cn", false),
        ] {
            assert_eq!(is_exempt(no_proxy, &platform(host)), exempt, "{no_proxy} {host}");
        }
    }

    fn environment<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    fn name(base_url: &str, variables: &[(&str, &str)]) -> Option<String> {
        match from_environment(&platform(base_url), &environment(variables)).unwrap() {
            Configured::Proxy(proxy) => Some(proxy.name),
            Configured::Nothing | Configured::Exempt => None,
        }
    }

    #[test]
    fn the_first_variable_that_is_not_empty_applies() {
        let (http, https) = ("http://open.feishu.cn", "https://open.feishu.cn");
        let a = Some("http://a:1".to_owned());
        assert_eq!(name(https, &[("HTTPS_PROXY", "a:1"), ("https_proxy", "b:1")]), a);
        assert_eq!(name(https, &[("HTTPS_PROXY", ""), ("https_proxy", "a:1")]), a);
        assert_eq!(name(https, &[("ALL_PROXY", "b:1"), ("https_proxy", "a:1")]), a);
        assert_eq!(name(https, &[("all_proxy", "a:1"), ("HTTP_PROXY", "b:1")]), a);
        assert_eq!(name(http, &[("HTTP_PROXY", "a:1"), ("HTTPS_PROXY", "b:1")]), a);
        assert_eq!(
            name(
                https,
                &[("HTTPS_PROXY", "a:1"), ("NO_PROXY", ""), ("no_proxy", "*")]
            ),
            None
        );
        assert_eq!(name(https, &[]), None);
    }

    #[test]
    fn http_proxy_is_ignored_in_a_cgi_script() {
        let variables = [("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "attacker:1")];
        assert_eq!(name("http://open.feishu.cn", &variables), None);
        let variables = [("REQUEST_METHOD", "GET"), ("http_proxy", "a:1")];
        let used = if cfg!(windows) { None } else { Some("http://a:1") };
        assert_eq!(name("http://open.feishu.cn", &variables).as_deref(), used);
    }

    #[test]
    fn an_error_names_an_invalid_variable_without_its_password() {
        for (value, masked) in [
            ("http://me:hunter2/@proxy:1", "http://[secret]@proxy:1"),
            ("http://me:hunter2", "http://me:[secret]"),
            ("me:hunter2", "me:[secret]"),
            ("http://me:7654321", "http://me:[secret]"),
            ("me:hunter://2@proxy", "[secret]@proxy"),
            ("http://me:1@a#hunter2", "http://[secret]@a"),
            ("ftp://proxy:21", "ftp://proxy:21"),
            ("http://proxy/path", "http://proxy/path"),
        ] {
            let variables = [("https_proxy", value)];
            let refused = from_environment(&platform("https://open.feishu.cn"), &environment(&variables));
            let error = refused.err().unwrap().to_string();
            assert!(error.contains("https_proxy is"), "{error}");
            assert!(error.contains(&format!("\"{masked}\"")), "{error}");
            assert!(!error.contains("hunter") && !error.contains("7654321"), "{error}");
        }
    }
}
