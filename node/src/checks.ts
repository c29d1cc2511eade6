// Checks of argument types, for callers without TypeScript.

import { invalidInput } from './errors.js'
import { native } from './load.js'

/**
 * Names a value's type. Does not show the value, because it may be a secret.
 *
 * @internal
 */
export function kindOf(value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'an array'
  if (Number.isNaN(value)) return 'NaN'
  if (typeof value === 'boolean') return `${value}`
  if (typeof value === 'undefined') return 'missing'
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`
}

/** @internal */
export function string(field: string, value: unknown, expected: string): string {
  if (typeof value !== 'string') {
    throw invalidInput(field, kindOf(value), expected)
  }
  if (!isText(value)) {
    throw invalidInput(field, 'a string with half of a surrogate pair', expected)
  }
  return value
}

/** Whether a value is a string that UTF-8 can encode. Half of a surrogate pair would be replaced by another character. */
function isText(value: unknown): value is string {
  return typeof value === 'string' && value.isWellFormed()
}

/** @internal */
export function boolean(field: string, value: unknown): boolean {
  if (typeof value !== 'boolean') {
    throw invalidInput(field, shown(value), 'true or false')
  }
  return value
}

/** @internal */
export function number(field: string, value: unknown, expected: string): number {
  if (typeof value !== 'number' || !Number.isFinite(value)) {
    throw invalidInput(field, typeof value === 'number' ? `${value}` : shown(value), expected)
  }
  return value
}

/**
 * Adds the strings to `read` one by one, so that they are available if the caller's code throws.
 *
 * @internal
 */
export function strings(field: string, value: unknown, expected: string, read: string[]): void {
  if (!Array.isArray(value)) {
    throw invalidInput(field, shown(value), expected)
  }
  for (const item of value) {
    read.push(isText(item) ? item : string(`${field}[${read.length}]`, item, 'a string'))
  }
}

/** @internal */
export function callback(field: string, value: unknown): Function | undefined {
  if (value !== undefined && typeof value !== 'function') {
    throw invalidInput(field, kindOf(value), 'a function')
  }
  return value
}

/**
 * Accepts any object with a signal's interface, because polyfills and other realms have different classes.
 *
 * @internal
 */
export function signal(value: unknown): AbortSignal {
  const { aborted, addEventListener } = (value ?? {}) as Partial<AbortSignal>
  if (typeof aborted !== 'boolean' || typeof addEventListener !== 'function') {
    throw invalidInput('signal', kindOf(value), 'an AbortSignal')
  }
  return value as AbortSignal
}

/**
 * Returns an object's own fields, and throws for an unknown one. Ignores inherited ones: a polluted `Object.prototype`
 * could set another server for the secret. All known names are own properties of the result, also those without a value.
 *
 * @internal
 */
export function fields<Name extends string>(
  what: string,
  value: unknown,
  known: readonly Name[],
  unknown: (name: string) => Error = (name) =>
    invalidInput(name, `unknown in ${what}`, `one of ${known.join(', ')}`),
): Partial<Record<Name, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalidInput(what, kindOf(value), `an object with ${known.join(', ')}`)
  }
  for (const name of Object.keys(value)) {
    if (!known.includes(name as Name)) {
      throw unknown(name)
    }
  }
  const own: Partial<Record<Name, unknown>> = {}
  for (const name of known) {
    own[name] = Object.hasOwn(value, name) ? (value as Record<Name, unknown>)[name] : undefined
  }
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) {
    refuseInherited(what, own, prototype as object)
  }
  return own
}

/** Throws if a class in the prototype chain defines a known field, for example as a getter, because it would be ignored. */
function refuseInherited(what: string, own: object, prototype: object): void {
  let next: object | null = prototype
  while (next !== null) {
    const above: object | null = Object.getPrototypeOf(next) as object | null
    // The last prototype is `Object.prototype`, perhaps of another realm.
    if (above === null) return
    for (const name of Object.keys(own)) {
      if (Object.hasOwn(next, name) && (own as Record<string, unknown>)[name] === undefined) {
        throw invalidInput(
          name,
          `inherited in ${what}`,
          `an own property; pass a plain object, as in { ${name}: value.${name} }`,
        )
      }
    }
    next = above
  }
}

/** Describes a value that is never a secret: a string by its text, any other value by its type. */
function shown(value: unknown): string {
  return typeof value === 'string' ? `the string ${native.shown(value.toWellFormed())}` : kindOf(value)
}
