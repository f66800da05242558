//! What the behaviour tests share: worlds, actors and the compiled `interceptor` command.
