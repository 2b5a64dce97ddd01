//! An event that content posts to a session.

use std::any::Any;
use std::fmt;

/// Any value of content's, on its way to a session: the answer of a database, a message from another server.
///
/// ```
/// use madang::Event;
/// struct Gold(u64);
/// match Event::new(Gold(5)).downcast::<Gold>() {
///     Ok(gold) => assert_eq!(gold.0, 5),
///     Err(other) => panic!("somebody posts something else: {other:?}"),
/// }
/// ```
pub struct Event(Box<dyn Any + Send>);

impl Event {
    /// Wraps a value.
    pub fn new<T: Send + 'static>(value: T) -> Event {
        Event(Box::new(value))
    }

    /// The value, if it is a `T`; the event itself otherwise.
    pub fn downcast<T: 'static>(self) -> Result<T, Event> {
        self.0.downcast().map(|value| *value).map_err(Event)
    }

    /// Whether the value is a `T`.
    pub fn is<T: 'static>(&self) -> bool {
        self.0.is::<T>()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Event")
    }
}
