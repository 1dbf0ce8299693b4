//! All integration tests, in one binary.

mod s3_server;
mod store_decorators;
mod store_s3;
mod store_suite;
mod store_url;
