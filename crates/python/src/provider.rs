//! Token providers written in Python: asked from the runtime, which never touches Python, and answered
//! on a thread of Python's.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::{fmt, io};

use feishu_feed_card::{BoxError, ProvidedToken, Providing, TokenProvider, TokenReason, binding};
use pyo3::PyTraverseError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple, PyWeakrefReference};
use tokio::sync::{Notify, oneshot};

use crate::arguments;
use crate::errors::{Errors, Refusal};
use crate::loops::Mailbox;
use crate::process::PerProcess;

/// The callable, and the exception it raised last: Rust refers to both only through a weak reference to
/// this, so that a cycle through the callable or through a traceback's frames can be collected.
#[pyclass(module = "feishu_feed_card._native", frozen, weakref)]
pub(crate) struct Provider {
    callable: Mutex<Option<Py<PyAny>>>,
    /// Whether it is called with the token that the platform refused, or `None`.
    takes_refused: bool,
    raised: Mutex<Option<(u64, Py<PyAny>)>>,
    next: AtomicU64,
}

#[pymethods]
impl Provider {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(callable) = self.callable.try_lock() {
            visit.call(&*callable)?;
        }
        if let Ok(raised) = self.raised.try_lock()
            && let Some((_, exception)) = &*raised
        {
            visit.call(exception)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        drop(lock(&self.callable).take());
        drop(lock(&self.raised).take());
    }
}

impl Provider {
    pub(crate) fn new(callable: Bound<'_, PyAny>) -> Result<Self, Refusal> {
        if !callable.is_callable() {
            return Err(arguments::wrong("token_provider", &callable, "a function").into());
        }
        let module = callable.py().import("feishu_feed_card._provider")?;
        let takes_refused: Option<bool> = module.call_method1("takes_refused", (&callable,))?.extract()?;
        let Some(takes_refused) = takes_refused else {
            let expected = "a function without required parameters but `refused_token`";
            return Err(arguments::wrong("token_provider", &callable, expected).into());
        };
        Ok(Self {
            callable: Mutex::new(Some(callable.unbind())),
            takes_refused,
            raised: Mutex::default(),
            next: AtomicU64::new(0),
        })
    }

    /// What the core asks for tokens.
    pub(crate) fn asked_through(slf: &Bound<'_, Self>, desk: Desk) -> PyResult<Asking> {
        let provider = PyWeakrefReference::new(slf.as_any())?;
        Ok(Asking {
            provider: Arc::new(provider.unbind()),
            desk,
        })
    }

    fn remember(&self, exception: Py<PyAny>) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let before = lock(&self.raised).replace((number, exception));
        drop(before);
        number
    }
}

/// `feishu_feed_card._provider`, which the first client with a provider imports.
pub(crate) fn helpers(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static HELPERS: PerProcess<Py<PyModule>> = PerProcess::new();
    HELPERS.import(py, "feishu_feed_card._provider")
}

type WeakProvider = Arc<Py<PyWeakrefReference>>;

fn upgrade<'py>(py: Python<'py>, provider: &WeakProvider) -> Option<Bound<'py, Provider>> {
    use pyo3::types::PyWeakrefMethods;
    provider.bind(py).upgrade_as().ok().flatten()
}

/// Where a question is put so that Python comes to see it.
pub(crate) enum Desk {
    /// For whichever blocking call of the client looks next.
    Board(Arc<Board>),
    /// The event loop of the call that asks. If it is gone, another call that waits for the token asks its own.
    Loop,
}

/// What the core asks for tokens.
pub(crate) struct Asking {
    provider: WeakProvider,
    desk: Desk,
}

/// The event loop's call that is being polled: the [`Origin`](binding::Origin) of its tasks.
pub(crate) struct Caller(Mutex<(Arc<Mailbox>, u64)>);

impl Caller {
    pub(crate) fn new(mailbox: Arc<Mailbox>, call: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new((mailbox, call))))
    }

    /// Many calls go on in another event loop.
    pub(crate) fn move_to(&self, other: &Self) {
        let there = lock(&other.0).clone();
        *lock(&self.0) = there;
    }
}

impl TokenProvider for Asking {
    fn tenant_access_token(&self, reason: TokenReason<'_>) -> Providing {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            provider: self.provider.clone(),
            refused: reason.refused_token().map(str::to_owned),
            answer,
        };
        match &self.desk {
            Desk::Board(board) => board.post(question),
            Desk::Loop => {
                if let Some(caller) = binding::origin().and_then(|origin| origin.downcast::<Caller>().ok()) {
                    let (mailbox, call) = lock(&caller.0).clone();
                    mailbox.ask(call, question);
                }
            }
        }
        Box::pin(async move {
            let abandoned = |_| Err(binding::Abandoned.into());
            answered.await.unwrap_or_else(abandoned)
        })
    }
}

/// Questions for whichever blocking call looks next, or for an [`Attendant`].
#[derive(Default)]
pub(crate) struct Board {
    questions: Mutex<VecDeque<Question>>,
    posted: Notify,
    changed: Condvar,
}

impl Board {
    fn post(&self, question: Question) {
        lock(&self.questions).push_back(question);
        self.posted.notify_one();
        self.changed.notify_all();
    }

    /// Has a thread of Python's look until the attendance is dropped: many calls go on while their caller is
    /// busy with a result.
    pub(crate) fn attend(self: Arc<Self>, py: Python<'_>, errors: &Errors) -> PyResult<Attendance> {
        let is_over = Arc::<AtomicBool>::default();
        let attendant = Attendant {
            board: self.clone(),
            is_over: is_over.clone(),
        };
        // Before the thread starts: it ends also where starting it was interrupted.
        let attendance = Attendance { board: self, is_over };
        helpers(py)?
            .call_method1("attend", (attendant,))
            .map_err(|error| {
                if error.is_instance_of::<PyRuntimeError>(py) {
                    // So `threading` reports that the system has no thread.
                    errors.out_of_resources(py, io::Error::other(error.value(py).to_string()), Vec::new())
                } else {
                    error
                }
            })?;
        Ok(attendance)
    }

    /// Has threads answer the questions that are there.
    pub(crate) fn answer_questions(&self, py: Python<'_>) -> PyResult<()> {
        loop {
            let question = lock(&self.questions).pop_front();
            match question {
                Some(question) => question.answer_in_thread(py)?,
                None => return Ok(()),
            }
        }
    }

    pub(crate) async fn posted(&self) {
        self.posted.notified().await;
    }
}

/// Who looks at a board.
#[pyclass(module = "feishu_feed_card._native", frozen)]
pub(crate) struct Attendant {
    board: Arc<Board>,
    is_over: Arc<AtomicBool>,
}

#[pymethods]
impl Attendant {
    /// Waits for the next question. Returns none if the attendance is over.
    ///
    /// Python has it answered, not this: before 3.14 a thread that comes back to the interpreter as that ends is
    /// unwound, and no frame of Rust may lie below.
    fn next_question<'py>(&self, py: Python<'py>) -> PyResult<Option<Asked<'py>>> {
        while let Some(question) = py.detach(|| self.next()) {
            if let Some(asked) = question.unpacked(py)? {
                return Ok(Some(asked));
            }
        }
        Ok(None)
    }
}

impl Attendant {
    fn next(&self) -> Option<Question> {
        let mut questions = lock(&self.board.questions);
        loop {
            if self.is_over.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(question) = questions.pop_front() {
                return Some(question);
            }
            let changed = self.board.changed.wait(questions);
            questions = changed.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// For as long as a board is looked at.
pub(crate) struct Attendance {
    board: Arc<Board>,
    is_over: Arc<AtomicBool>,
}

impl Drop for Attendance {
    fn drop(&mut self) {
        let questions = lock(&self.board.questions);
        self.is_over.store(true, Ordering::Relaxed);
        drop(questions);
        self.board.changed.notify_all();
    }
}

/// Whom to ask, with which arguments, and where the answer goes.
type Asked<'py> = (Py<PyAny>, Bound<'py, PyList>, Py<Answer>);

/// A token is wanted.
pub(crate) struct Question {
    provider: WeakProvider,
    /// The token that the platform refused.
    refused: Option<String>,
    answer: oneshot::Sender<Result<ProvidedToken, BoxError>>,
}

impl Question {
    /// Has a thread answer: a provider that blocks must not keep a call past its deadline.
    fn answer_in_thread(self, py: Python<'_>) -> PyResult<()> {
        if let Some(asked) = self.unpacked(py)? {
            helpers(py)?.call_method1("ask_in_thread", asked)?;
        }
        Ok(())
    }

    /// Has the running event loop answer, in a call's context where that is known.
    pub(crate) fn answer_on_loop(self, py: Python<'_>, context: Option<Py<PyAny>>) -> PyResult<()> {
        if let Some((callable, arguments, answer)) = self.unpacked(py)? {
            helpers(py)?.call_method1("ask_on_loop", (callable, arguments, answer, context))?;
        }
        Ok(())
    }

    fn unpacked(self, py: Python<'_>) -> PyResult<Option<Asked<'_>>> {
        let Some(provider) = upgrade(py, &self.provider) else {
            return Ok(None);
        };
        let Some(callable) = lock(&provider.get().callable)
            .as_ref()
            .map(|callable| callable.clone_ref(py))
        else {
            return Ok(None);
        };
        let answer = Answer {
            provider: self.provider,
            sender: Mutex::new(Some(self.answer)),
        };
        let arguments = if provider.get().takes_refused {
            PyList::new(py, [self.refused])?
        } else {
            PyList::empty(py)
        };
        Ok(Some((callable, arguments, Py::new(py, answer)?)))
    }
}

/// Takes what a provider returned or raised, once.
#[pyclass(module = "feishu_feed_card._native", frozen)]
pub(crate) struct Answer {
    provider: WeakProvider,
    sender: Mutex<Option<oneshot::Sender<Result<ProvidedToken, BoxError>>>>,
}

#[pymethods]
impl Answer {
    /// Takes what the provider returned: a token, or a token and the seconds it is good for.
    fn give(&self, token: &Bound<'_, PyAny>) {
        self.send(provided(token).map_err(Into::into));
    }

    /// Reports that the system has no thread for the provider, in `threading`'s words.
    fn refuse(&self, why: String) {
        self.send(Err(binding::NoThread(why).into()));
    }

    /// Tells that there will be none: another caller may ask again.
    fn abandon(&self) {
        drop(lock(&self.sender).take());
    }

    /// Takes what the provider raised.
    fn fail(&self, exception: &Bound<'_, PyAny>) {
        let py = exception.py();
        let number =
            upgrade(py, &self.provider).map(|provider| provider.get().remember(exception.clone().unbind()));
        let name = exception.get_type().name().map(|name| name.to_string());
        let name = name.unwrap_or_else(|_| "an exception".to_owned());
        let text = exception.str().map(|text| text.to_string_lossy().into_owned());
        let message = match text {
            Ok(text) if !text.is_empty() => format!("{name}: {text}"),
            _ => name,
        };
        self.send(Err(Box::new(Raised {
            provider: self.provider.clone(),
            number,
            message,
        })));
    }
}

impl Answer {
    fn send(&self, answer: Result<ProvidedToken, BoxError>) {
        let sender = lock(&self.sender).take();
        if let Some(sender) = sender {
            // Nobody waits any more where the fetch timed out.
            let _ = sender.send(answer);
        }
    }
}

/// The value is not shown in an error: it is, or holds, a token.
fn provided(token: &Bound<'_, PyAny>) -> Result<ProvidedToken, String> {
    const EXPECTED: &str = "expected a str, or a tuple of a str and the seconds it is good for";
    let text = |value: &Bound<'_, PyAny>| {
        let text = value.cast::<PyString>().ok()?;
        text.to_str().ok().map(ProvidedToken::new)
    };
    if let Ok(pair) = token.cast::<PyTuple>()
        && let Ok((value, life)) = pair.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()
    {
        let Some(token) = text(&value) else {
            return Err(format!(
                "it returned a tuple whose first is not a str; {EXPECTED}"
            ));
        };
        if life.is_none() {
            return Ok(token);
        }
        let life = arguments::seconds("the token provider's seconds", &life, binding::seconds);
        return life
            .map(|life| token.expires_in(life))
            .map_err(|error| error.to_string());
    }
    let name = || {
        token
            .get_type()
            .name()
            .map_or_else(|_| "an object".to_owned(), |name| name.to_string())
    };
    text(token).ok_or_else(|| format!("it returned {}; {EXPECTED}", name()))
}

/// A Python exception, as the cause of an error in the core.
pub(crate) struct Raised {
    provider: WeakProvider,
    number: Option<u64>,
    message: String,
}

impl Raised {
    /// The exception, where the provider has not raised another since.
    pub(crate) fn exception<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let provider = upgrade(py, &self.provider)?;
        let raised = lock(&provider.get().raised);
        let (number, exception) = raised.as_ref()?;
        (Some(*number) == self.number).then(|| exception.bind(py).clone())
    }
}

impl fmt::Debug for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Raised").field(&self.message).finish()
    }
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Raised {}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
