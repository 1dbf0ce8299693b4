//! Three-way merge of trees: cases by name, and properties over random histories.

mod cases;
mod model;
mod properties;
