// Re-exports the CommonJS implementation, so that `import` and `require` get the same error classes.
export * from './index.js'
