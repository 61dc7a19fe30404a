//! stub: being built
