//! Conversion of Python arguments to the core's types. A wrong type is an invalid-input error, like a wrong value.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use feishu_feed_card::binding::Target;
use feishu_feed_card::{Error, Request, UserIdType, binding};
use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyIterator, PyList, PyMemoryView,
    PySet, PyString, PyTuple,
};

use crate::errors::Refusal;

/// Returns the error for a value of a wrong type.
pub(crate) fn wrong(field: &str, value: &Bound<'_, PyAny>, expected: impl Display) -> Error {
    binding::invalid_input(field, described(value), expected)
}

/// Like [`wrong`], but the error does not show the value.
fn wrong_secret(field: &str, value: &Bound<'_, PyAny>, expected: &str) -> Error {
    binding::invalid_input(field, format_args!("of type {}", type_name(value)), expected)
}

pub(crate) fn text(field: &str, value: &Bound<'_, PyAny>) -> Result<String, Error> {
    match value.cast::<PyString>() {
        Ok(text) => match text.to_str() {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(wrong(field, value, "text without lone surrogates")),
        },
        Err(_) => Err(wrong(field, value, "a str")),
    }
}

pub(crate) fn secret(field: &str, value: &Bound<'_, PyAny>) -> Result<String, Error> {
    match value.cast::<PyString>() {
        Ok(text) => match text.to_str() {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(wrong_secret(field, value, "text without lone surrogates")),
        },
        Err(_) => Err(wrong_secret(field, value, "a str")),
    }
}

pub(crate) fn flag(field: &str, value: &Bound<'_, PyAny>) -> Result<bool, Error> {
    match value.cast::<PyBool>() {
        Ok(flag) => Ok(flag.is_true()),
        Err(_) => Err(wrong(field, value, "True or False")),
    }
}

/// Converts an optional callback, which must not be an async function.
pub(crate) fn callback(field: &str, value: &Bound<'_, PyAny>) -> Result<Option<Py<PyAny>>, Refusal> {
    if value.is_none() {
        return Ok(None);
    }
    if !value.is_callable() {
        return Err(wrong(field, value, "a function").into());
    }
    // If it cannot be inspected, assume that it is not async.
    if none_if_raised(value.py(), is_async(value))?.unwrap_or(false) {
        let expected = "a function that is not async, because its result is not awaited";
        return Err(wrong(field, value, expected).into());
    }
    Ok(Some(value.clone().unbind()))
}

/// Converts a number of seconds. `check` is the core's check of its range.
pub(crate) fn seconds(
    field: &'static str,
    value: &Bound<'_, PyAny>,
    check: fn(&'static str, f64) -> Result<Duration, Error>,
) -> Result<Duration, Error> {
    let is_number = value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>();
    if !is_number || value.is_instance_of::<PyBool>() {
        return Err(wrong(field, value, "a number of seconds"));
    }
    // Fails only for an int beyond the largest float.
    let number = value.extract().unwrap_or(f64::INFINITY);
    check(field, number)
}

pub(crate) fn count<T>(field: &str, value: &Bound<'_, PyAny>) -> Result<T, Error>
where
    T: TryFrom<u64>,
{
    let number = (value.is_instance_of::<PyInt>() && !value.is_instance_of::<PyBool>())
        .then(|| value.extract::<u64>().ok())
        .flatten()
        .and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| wrong(field, value, "a whole number, not negative"))
}

/// Converts the path of a file, a `str` or `os.PathLike`.
pub(crate) fn path(field: &str, value: &Bound<'_, PyAny>) -> Result<PathBuf, Refusal> {
    let path = none_if_raised(value.py(), value.extract())?;
    path.ok_or_else(|| wrong(field, value, "the path of a file, as a str or os.PathLike").into())
}

/// Passed in place of a group chat's id, for the bot's own chat.
#[pyclass(module = "feishu_feed_card._native", frozen)]
pub(crate) struct Bot;

/// Converts a group chat's id, or [`Bot`].
pub(crate) fn target(value: &Bound<'_, PyAny>) -> Result<Target, Error> {
    if value.is_instance_of::<Bot>() {
        return Ok(Target::Bot);
    }
    text("feed_card_id", value).map(|id| Target::Chat(id.into()))
}

/// Converts any iterable of user ids, except strings and mappings.
pub(crate) fn user_ids(value: &Bound<'_, PyAny>) -> Result<Vec<String>, Refusal> {
    let mut user_ids = Vec::new();
    match read_user_ids(value, &mut user_ids) {
        Ok(()) => Ok(user_ids),
        Err(error) => Err(error.with_users(ids_beside(value, user_ids))),
    }
}

/// Returns the user ids for the error of a refused call: all strings in a container, or a single string. Does not read an
/// iterator, because it can be read only once.
pub(crate) fn ids_in(value: &Bound<'_, PyAny>) -> Vec<String> {
    let id = |item: &Bound<'_, PyAny>| Some(item.cast::<PyString>().ok()?.to_str().ok()?.to_owned());
    if let Some(id) = id(value) {
        return vec![id];
    }
    let is_container = value.is_instance_of::<PyList>()
        || value.is_instance_of::<PyTuple>()
        || value.is_instance_of::<PySet>()
        || value.is_instance_of::<PyFrozenSet>();
    let items = is_container.then(|| value.try_iter().ok()).flatten();
    let items = items.into_iter().flatten().map_while(Result::ok);
    items.filter_map(|item| id(&item)).collect()
}

/// Returns the user ids for the error of an invalid list: all strings in it, or those `read` from an iterator.
fn ids_beside(value: &Bound<'_, PyAny>, read: Vec<String>) -> Vec<String> {
    let found = ids_in(value);
    if found.is_empty() { read } else { found }
}

/// Reads user ids. Copies a list to a tuple first, because another thread may change the list.
fn read_user_ids(value: &Bound<'_, PyAny>, user_ids: &mut Vec<String>) -> Result<(), Refusal> {
    const FIELD: &str = "user_ids";
    const EXPECTED: &str = "a list of user ids";
    let own = match value.cast_exact::<PyList>() {
        Ok(list) => Some(list.to_tuple()),
        Err(_) => value.cast_exact::<PyTuple>().ok().cloned(),
    };
    if let Some(own) = own {
        user_ids.reserve(own.len().min(1024));
        for item in own.iter_borrowed() {
            read_user_id(&item, user_ids)?;
        }
        return Ok(());
    }
    let is_plain = value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>();
    if !is_plain && is_one_value(value)? {
        return Err(wrong(FIELD, value, EXPECTED).into());
    }
    let Some(items) = iterator(value)? else {
        return Err(wrong(FIELD, value, EXPECTED).into());
    };
    user_ids.reserve(length(value)?.unwrap_or(0).min(1024));
    for item in items {
        read_user_id(&item?, user_ids)?;
    }
    Ok(())
}

fn read_user_id(item: &Bound<'_, PyAny>, user_ids: &mut Vec<String>) -> Result<(), Error> {
    let id = item.cast::<PyString>().ok();
    let id = id.and_then(|id| id.to_str().ok().map(str::to_owned));
    user_ids.push(match id {
        Some(id) => id,
        None => text(&format!("user_ids[{}]", user_ids.len()), item)?,
    });
    Ok(())
}

/// Returns an iterator of the requests of many calls. Accepts any iterable except strings and mappings: a mapping would
/// be a single request.
pub(crate) fn requests<'py>(value: &Bound<'py, PyAny>) -> Result<Bound<'py, PyIterator>, Refusal> {
    const EXPECTED: &str = "an iterable of mappings with the call's parameters";
    let iterator = if is_one_value(value)? {
        None
    } else {
        iterator(value)?
    };
    iterator.ok_or_else(|| wrong("requests", value, EXPECTED).into())
}

/// Returns `None` if the value is not iterable. An exception of its `__iter__` is passed on to the caller.
fn iterator<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyIterator>>> {
    let py = value.py();
    match value.try_iter() {
        Ok(iterator) => Ok(Some(iterator)),
        // No traceback: the interpreter itself raised it, not an `__iter__` written in Python.
        Err(error) if error.is_instance_of::<PyTypeError>(py) && error.traceback(py).is_none() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the length of a value, or `None` if it has none.
pub(crate) fn length(value: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
    none_if_raised(value.py(), value.len())
}

/// Converts an `Exception` to `None`. Passes on others, such as `KeyboardInterrupt`.
fn none_if_raised<T>(py: Python<'_>, result: PyResult<T>) -> PyResult<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_instance_of::<PyException>(py) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Converts one of many requests: a mapping with the call's parameters, and a tag. After an error, `ids` and `tag` hold
/// the values that were read before it.
pub(crate) fn request(
    value: &Bound<'_, PyAny>,
    ids: &mut Vec<String>,
    tag: &mut Option<Py<PyAny>>,
) -> Result<Request, Refusal> {
    const NAMES: [&str; 6] = [
        "feed_card_id",
        "user_ids",
        "time_sensitive",
        "user_id_type",
        "timeout",
        "tag",
    ];
    let py = value.py();
    let mapping = match value.cast::<PyDict>() {
        Ok(mapping) => mapping.clone(),
        Err(_) if is_mapping(value)? => {
            let mapping = PyDict::new(py);
            mapping.call_method1("update", (value,))?;
            mapping
        }
        Err(_) => return Err(wrong("request", value, "a mapping with the call's parameters").into()),
    };
    let of = |name| mapping.get_item(name);
    let own = of("tag")?;
    let found = [
        of("feed_card_id")?,
        of("user_ids")?,
        of("time_sensitive")?,
        of("user_id_type")?,
        of("timeout")?,
    ];
    let has_unknown = found.iter().chain([&own]).flatten().count() < mapping.len();
    *tag = own.map(Bound::unbind);
    let [feed_card_id, user_ids, time_sensitive, user_id_type, timeout] = found;
    let Some(user_ids) = user_ids else {
        return Err(missing(NAMES[1]).into());
    };
    match read_user_ids(&user_ids, ids) {
        Ok(()) => {}
        Err(Refusal::Wrong(error)) => {
            let ids = ids_beside(&user_ids, std::mem::take(ids));
            return Err(binding::not_attempted(error, ids).into());
        }
        Err(raised) => return Err(raised),
    }
    let rest = || {
        if has_unknown {
            for key in mapping.keys() {
                let key = text("a request's key", &key)?;
                if !NAMES.contains(&key.as_str()) {
                    return Err(binding::unknown_key(&key));
                }
            }
        }
        Ok((
            text(NAMES[0], &feed_card_id.ok_or_else(|| missing(NAMES[0]))?)?,
            flag(NAMES[2], &time_sensitive.ok_or_else(|| missing(NAMES[2]))?)?,
            match user_id_type {
                None => UserIdType::default(),
                Some(user_id_type) => text(NAMES[3], &user_id_type)?.parse()?,
            },
            match timeout.filter(|timeout| !timeout.is_none()) {
                None => None,
                Some(timeout) => Some(seconds(NAMES[4], &timeout, binding::seconds)?),
            },
        ))
    };
    let rest = rest();
    let ids = std::mem::take(ids);
    match rest {
        Ok((feed_card_id, time_sensitive, user_id_type, timeout)) => {
            let mut request = Request::new(feed_card_id, ids, time_sensitive).user_id_type(user_id_type);
            request.timeout = timeout;
            Ok(request)
        }
        Err(error) => Err(binding::not_attempted(error, ids).into()),
    }
}

/// Whether a callable is an async function or async generator function. `inspect` has functions for this, but its import
/// is slow.
fn is_async(callable: &Bound<'_, PyAny>) -> PyResult<bool> {
    const CO_COROUTINE: u32 = 0x80;
    const CO_ASYNC_GENERATOR: u32 = 0x200;
    let py = callable.py();
    let mut callable = callable.clone();
    if callable.is_instance(&py.import("functools")?.getattr("partial")?)? {
        callable = callable.getattr("func")?;
    }
    let mut code = callable.getattr_opt("__code__")?;
    if code.is_none() {
        code = callable.get_type().getattr("__call__")?.getattr_opt("__code__")?;
    }
    let flags = code.and_then(|code| code.getattr("co_flags").ok()?.extract::<u32>().ok());
    Ok(flags.unwrap_or(0) & (CO_COROUTINE | CO_ASYNC_GENERATOR) != 0)
}

fn missing(name: &'static str) -> Error {
    binding::invalid_input(name, "missing", "a value")
}

/// Whether a value has the methods of a mapping. Avoids the import of `collections.abc`.
fn is_mapping(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    Ok(none_if_raised(value.py(), value.hasattr("keys"))?.unwrap_or(false))
}

/// Whether a value is iterable, but is not a list of items: a string or a mapping.
fn is_one_value(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let is_text = value.is_instance_of::<PyString>()
        || value.is_instance_of::<PyBytes>()
        || value.is_instance_of::<PyByteArray>()
        || value.is_instance_of::<PyMemoryView>();
    Ok(is_text || is_mapping(value)?)
}

/// Describes a value in an error: plain values by their `repr`, others by their type only.
fn described(value: &Bound<'_, PyAny>) -> String {
    let name = type_name(value);
    if value.is_none() {
        return name;
    }
    let is_plain = value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyBytes>()
        || value.is_exact_instance_of::<PyString>();
    // `repr` fails for an int of more than 4300 digits.
    let shown = is_plain.then(|| value.repr().ok()).flatten();
    match shown {
        Some(repr) => format!("{} of type {name}", shortened(&repr.to_string_lossy())),
        None => format!("of type {name}"),
    }
}

fn shortened(repr: &str) -> String {
    const MOST: usize = 40;
    match repr.char_indices().nth(MOST) {
        None => repr.to_owned(),
        Some((end, _)) => format!("{}…", &repr[..end]),
    }
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    if value.is_none() {
        return "None".to_owned();
    }
    match value.get_type().name() {
        Ok(name) => name.to_string_lossy().into_owned(),
        Err(_) => "unknown".to_owned(),
    }
}
