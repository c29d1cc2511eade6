/** The public types. The others are marked `@internal` and not published. */
const publicTypes = ['FailedUserReason', 'FieldViolation', 'PermissionViolation', 'Quota', 'Users']

/** Returns the native module's types as a TypeScript file. `lines` is the output of napi's macros: one JSON object per line. */
export function declarations(lines) {
  const items = lines
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))
  const methodsOf = (name) =>
    items.filter((item) => item.kind === 'impl' && item.name === name).map((item) => item.def)
  const declared = {
    // A private constructor and field prevent that TypeScript code creates or imitates a class without a constructor.
    struct: ({ name, def }) =>
      `export declare class ${name} {\n${body(constructible(methodsOf(name)) ? '' : 'private constructor()\n#native', def, ...methodsOf(name))}\n}`,
    interface: ({ name, def }) => `export interface ${name} {\n${body(def)}\n}`,
    fn: ({ def }) => `export declare ${def}`,
    impl: () => undefined,
  }
  const texts = items
    .toSorted((one, other) => (one.name < other.name ? -1 : 1))
    .map((item) => {
      const declare = declared[item.kind]
      if (declare === undefined) {
        throw new Error(`declarations: no rule for a ${item.kind} (${item.name})`)
      }
      const text = declare(item)
      return text && `${publicTypes.includes(item.name) ? item.js_doc : internal(item.js_doc)}${text}\n`
    })
    .filter(Boolean)
  return `// Written by scripts/build.mjs from crates/node/src; do not edit.\n\n${texts.join('\n')}`
}

const constructible = (methods) => methods.some((method) => /^ ?constructor\(/m.test(method))

const internal = (doc) =>
  doc.startsWith('/**\n')
    ? doc.replace(/ \*\/\n$/, ' *\n * @internal\n */\n')
    : doc.replace(/^\/\*\* (.*) \*\/\n$/, '/**\n * $1\n *\n * @internal\n */\n')

const body = (...parts) =>
  parts
    .join('\n')
    .split('\n')
    .filter(Boolean)
    .map((line) => (line.startsWith(' *') ? `  ${line}` : `  ${line.trim()}`))
    .join('\n')
