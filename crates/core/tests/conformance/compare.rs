//! Compares an actual value with the expected value of a case.

use serde_json::{Map, Value};

/// Returns one line for each difference.
pub(crate) fn differences(expected: &Value, came: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", expected, came, &mut found);
    found
}

fn compare(path: &str, expected: &Value, came: &Value, found: &mut Vec<String>) {
    let differs = match expected {
        Value::Object(range) if is_range(range) => !is_in(range, came),
        Value::Object(expected) => {
            let Value::Object(came) = came else {
                found.push(difference(path, &Value::Object(expected.clone()), came));
                return;
            };
            for (key, value) in expected {
                compare(
                    &format!("{path}.{key}"),
                    value,
                    came.get(key).unwrap_or(&Value::Null),
                    found,
                );
            }
            false
        }
        Value::Array(expected) => match came {
            Value::Array(came) if came.len() == expected.len() => {
                for (index, (expected, came)) in expected.iter().zip(came).enumerate() {
                    compare(&format!("{path}[{index}]"), expected, came, found);
                }
                false
            }
            _ => true,
        },
        Value::String(any) if any == "*" => is_empty(came),
        // 1 and 1.0 are the same number in JSON and in JavaScript.
        Value::Number(number) => number.as_f64() != came.as_f64(),
        other => other != came,
    };
    if differs {
        found.push(difference(path, expected, came));
    }
}

fn difference(path: &str, expected: &Value, came: &Value) -> String {
    format!("{path}: expected {expected}, came {came}")
}

fn is_range(object: &Map<String, Value>) -> bool {
    object.len() == 2 && object.contains_key("min") && object.contains_key("max")
}

fn is_in(range: &Map<String, Value>, came: &Value) -> bool {
    let bound = |name: &str| range[name].as_f64();
    match (bound("min"), came.as_f64(), bound("max")) {
        (Some(min), Some(came), Some(max)) => (min..=max).contains(&came),
        _ => false,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
