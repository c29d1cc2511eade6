//! The core's outcomes as Python's, and back.

use feishu_feed_card::{Error, FailedUserReason as CoreReason, Outcome as CoreOutcome};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::errors::Errors;
use crate::records::{Tuple, record};

record! {
    /// One user the platform did not reach. To be listed is to have failed.
    ///
    /// Attributes:
    ///     error_code: The platform's code for this user; 0 in its own example.
    ///     error_message: The reason in the platform's words, such as "The user is not in the chat".
    ///     user_id: The user, where the app has the field permission for that kind of id; else None.
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
    /// What a call came back with. Users may have failed one by one: see `ok` and `raise_for_failed`.
    ///
    /// Every user id handed in is in exactly one of `reached`, `failed`, `unknown` and `not_attempted`.
    ///
    /// Attributes:
    ///     failed_user_reasons: The users not reached, in the platform's words. Empty when all were reached.
    ///     log_ids: The platform's log ids, one for each answered request, in the order of the user ids.
    ///     requests: How many HTTP requests were sent for this call, replays included.
    ///     reached: User ids for which the platform took the new state.
    ///     failed: User ids that the platform refused.
    ///     unknown: User ids of which nobody can say: the platform counted failures without naming them.
    ///     not_attempted: User ids that were never sent.
    ///     call: The call's number, unique in this process: the `call` of its log records.
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
        /// Whether every user was reached.
        #[getter]
        fn ok(&self, py: Python<'_>) -> bool {
            self.failed_user_reasons.0.bind(py).is_empty()
        }

        /// The first request's log id; the platform's support asks for it.
        #[getter]
        fn log_id<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
            self.log_ids.0.bind(py).get_item(0).ok()
        }

        /// Raises where users were not reached.
        ///
        /// Returns:
        ///     The outcome itself, where all were reached.
        ///
        /// Raises:
        ///     PartialFailureError: Some users were not reached; its `outcome` is this one.
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
                // Made by a caller, or unpickled.
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

/// The Python object of an outcome. `errors` has the classes of what its `raise_for_failed` raises.
pub(crate) fn to_python<'py>(
    py: Python<'py>,
    errors: &Errors,
    outcome: &CoreOutcome,
) -> PyResult<Bound<'py, PyAny>> {
    let reached = PyTuple::new(py, &outcome.users.reached)?;
    to_python_with(py, errors, outcome, reached)
}

/// The same with Python's own texts of the ids that were reached.
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

/// What a call returns or raises.
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
