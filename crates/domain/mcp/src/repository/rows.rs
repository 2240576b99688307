//! Rows of this room's tables as lists of cells, in the order of the table's columns.

use std::marker::PhantomData;
use systemprompt_audit::{Cell, CloseRow, OpenRow, Table};

/// Names a table by a type, since a row says by its type where it belongs.
pub(super) trait InTable {
    const TABLE: &'static Table;
}

/// The opening of a row.
pub(super) struct Opening<T>(Vec<Cell>, PhantomData<T>);

impl<T: InTable> Opening<T> {
    pub(super) fn new(cells: Vec<Cell>) -> Self {
        Self(cells, PhantomData)
    }
}

impl<T: InTable> OpenRow for Opening<T> {
    const TABLE: &'static Table = T::TABLE;

    fn cells(self) -> Vec<Cell> {
        self.0
    }
}

/// The closing of the row with a key.
pub(super) struct Closing<T> {
    key: Box<str>,
    cells: Vec<Cell>,
    table: PhantomData<T>,
}

impl<T: InTable> Closing<T> {
    pub(super) fn new(key: &str, cells: Vec<Cell>) -> Self {
        Self { key: key.into(), cells, table: PhantomData }
    }
}

impl<T: InTable> CloseRow for Closing<T> {
    const TABLE: &'static Table = T::TABLE;

    fn key(&self) -> &str {
        &self.key
    }

    fn cells(self) -> Vec<Cell> {
        self.cells
    }
}
