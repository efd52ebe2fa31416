//! Names and ids that must not be mixed up.

use std::fmt;

/// A random id of one run of the process. The pair (incarnation, attempt) of a claim is never used again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Incarnation(String);

impl Incarnation {
    /// Takes an id that the caller drew at random.
    #[must_use]
    pub fn new(random: String) -> Self {
        Self(random)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// UID of a Broadcast. A later Broadcast of the same name has another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BroadcastUid(String);

impl BroadcastUid {
    /// Takes the UID that the API server gave.
    #[must_use]
    pub fn new(uid: String) -> Self {
        Self(uid)
    }

    /// The UID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One process of the operator among its replicas, from when it joins them until it leaves or is given up.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId(String);

impl ReplicaId {
    /// Takes an id that no other process has or had.
    #[must_use]
    pub fn new(id: String) -> Self {
        Self(id)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace.
    pub namespace: String,
    /// Name in it.
    pub name: String,
}

impl ObjectKey {
    /// Key of the object `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

/// Name of page `index` of a Broadcast: the same for ever, so that a second writer meets the first one's page.
#[must_use]
pub fn page_name(broadcast: &str, index: usize) -> String {
    format!("{broadcast}-{index:05}")
}

/// The Broadcast that a page of this name is of.
#[must_use]
pub fn broadcast_of(page_name: &str) -> &str {
    page_name.rsplit_once('-').map_or(page_name, |(broadcast, _)| broadcast)
}
