// One implementation, CommonJS: an error is of the same class however the package was loaded.
export * from './index.js'
