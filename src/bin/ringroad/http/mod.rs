//! http
mod date;
mod request;
mod session;
mod site;
