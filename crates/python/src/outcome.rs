//! Conversion of outcomes between the core and Python.

use feishu_feed_card::{Error, FailedUserReason as CoreReason, Outcome as CoreOutcome};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::errors::Errors;
use crate::records::{Tuple, record};

record! {
    /// A user that a call did not reach.
    ///
    /// Attributes:
    ///     error_code: The platform's code for this user. It can be 0, also for a failed user.
    ///     error_message: The platform's message, such as "The user is not in the chat".
    ///     user_id: The user's id. None if the app lacks the field permission for this type of id.
    ///
    /// Example:
    ///     >>> FailedUserReason(0, "The user is not in the chat", "ou_1").user_id
    ///     'ou_1'
    struct FailedUserReason {
        error_code: i64 = 0,
        error_message: String = String::new(),
        user_id: Option<String> = None,
    }
    {}
}

record! {
    /// The result of a call. It may include users that were not reached: see `ok` and `raise_for_failed`.
    ///
    /// Each of the call's user ids is in exactly one of `reached`, `failed`, `unknown` and `not_attempted`.
    ///
    /// Attributes:
    ///     failed_user_reasons: The users that were not reached, with the platform's reasons. Empty if all were reached.
    ///     log_ids: The platform's log ids, one for each answered request, in the order of the user ids.
    ///     requests: Number of HTTP requests sent for this call, including retries.
    ///     reached: User ids for which the platform accepted the new state.
    ///     failed: User ids that the platform refused.
    ///     unknown: User ids whose result is not known, because the platform reported failures without naming the users.
    ///     not_attempted: User ids that were never sent.
    ///     call: The call's number, unique in this process. Log records have the same number as `call`.
    ///
    /// Example:
    ///     >>> outcome = Outcome(reached=["ou_1"], requests=1)
    ///     >>> outcome.ok
    ///     True
    ///     >>> outcome.to_dict()["reached"]
    ///     ['ou_1']
    struct Outcome {
        failed_user_reasons: Tuple = Tuple::default(),
        log_ids: Tuple = Tuple::default(),
        requests: u32 = 0,
        reached: Tuple = Tuple::default(),
        failed: Tuple = Tuple::default(),
        unknown: Tuple = Tuple::default(),
        not_attempted: Tuple = Tuple::default(),
        call: Option<u64> = None,
        ; errors: Option<Errors>,
    }
    also ok, log_id;
    {
        /// Whether all users were reached.
        #[getter]
        fn ok(&self, py: Python<'_>) -> bool {
            self.failed_user_reasons.0.bind(py).is_empty()
        }

        /// The log id of the first request, for the platform's support.
        #[getter]
        fn log_id<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
            self.log_ids.0.bind(py).get_item(0).ok()
        }

        /// Raises an exception if users were not reached.
        ///
        /// Returns:
        ///     This outcome, if all users were reached.
        ///
        /// Raises:
        ///     PartialFailureError: Some users were not reached. The error's `outcome` is this outcome.
        ///
        /// Example:
        ///     >>> reason = FailedUserReason(0, "not in the chat", "ou_1")
        ///     >>> Outcome(failed_user_reasons=[reason], failed=["ou_1"]).raise_for_failed()
        ///     Traceback (most recent call last):
        ///     feishu_feed_card.PartialFailureError: 1 of 1 users were not reached (ou_1: not in the chat)
        fn raise_for_failed<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
            let py = slf.py();
            let outcome = slf.get();
            let Err(error) = outcome.to_core(py)?.into_result() else {
                return Ok(slf.clone());
            };
            match &outcome.errors {
                Some(errors) => Err(errors.raised(py, &error)),
                // This outcome was created in Python, or unpickled.
                None => Err(Errors::imported(py)?.raised(py, &error)),
            }
        }
    }
}

impl Outcome {
    fn to_core(&self, py: Python<'_>) -> PyResult<CoreOutcome> {
        let mut core = CoreOutcome::default();
        for reason in self.failed_user_reasons.0.bind(py) {
            let reason = reason.cast_into::<FailedUserReason>()?;
            let FailedUserReason {
                error_code,
                error_message,
                user_id,
            } = reason.get();
            let mut core_reason = CoreReason::default();
            core_reason.error_code = *error_code;
            core_reason.error_message.clone_from(error_message);
            core_reason.user_id.clone_from(user_id);
            core.failed_user_reasons.push(core_reason);
        }
        let texts = |tuple: &Tuple| tuple.0.extract::<Vec<String>>(py);
        core.log_ids = texts(&self.log_ids)?;
        core.requests = self.requests;
        core.users.reached = texts(&self.reached)?;
        core.users.failed = texts(&self.failed)?;
        core.users.unknown = texts(&self.unknown)?;
        core.users.not_attempted = texts(&self.not_attempted)?;
        core.call = self.call;
        Ok(core)
    }
}

/// Converts an outcome to its Python object. `errors` has the exception classes for `raise_for_failed`.
pub(crate) fn to_python<'py>(
    py: Python<'py>,
    errors: &Errors,
    outcome: &CoreOutcome,
) -> PyResult<Bound<'py, PyAny>> {
    let reached = PyTuple::new(py, &outcome.users.reached)?;
    to_python_with(py, errors, outcome, reached)
}

/// Like [`to_python`], but with existing Python strings for the ids that were reached.
pub(crate) fn to_python_with<'py>(
    py: Python<'py>,
    errors: &Errors,
    outcome: &CoreOutcome,
    reached: Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let reasons = outcome.failed_user_reasons.iter().map(|reason| FailedUserReason {
        error_code: reason.error_code,
        error_message: reason.error_message.clone(),
        user_id: reason.user_id.clone(),
    });
    let users = &outcome.users;
    let outcome = Outcome {
        failed_user_reasons: Tuple::of(py, reasons)?,
        log_ids: Tuple::of(py, &outcome.log_ids)?,
        requests: outcome.requests,
        reached: Tuple(reached.unbind()),
        failed: Tuple::of(py, &users.failed)?,
        unknown: Tuple::of(py, &users.unknown)?,
        not_attempted: Tuple::of(py, &users.not_attempted)?,
        call: outcome.call,
        errors: Some(errors.clone_ref(py)),
    };
    Bound::new(py, outcome).map(Bound::into_any)
}

/// Converts the end of a call to its return value or exception.
pub(crate) fn returned<'py>(
    py: Python<'py>,
    errors: &Errors,
    end: Result<CoreOutcome, Error>,
) -> PyResult<Bound<'py, PyAny>> {
    match end {
        Ok(outcome) => to_python(py, errors, &outcome),
        Err(error) => Err(errors.raised(py, &error)),
    }
}
