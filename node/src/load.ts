import type * as Binding from './binding.js'

/** The packages that may hold the native module here; of two, the one for the other libc does not load. */
function candidates(): string[] {
  const { platform, arch } = process
  const libcs: Record<string, string[]> = { linux: ['-gnu', '-musl'], win32: ['-msvc'] }
  return (libcs[platform] ?? ['']).map((libc) => `${platform}-${arch}${libc}`)
}

/** Loads the native module: the one built in the clone, or the platform's package. */
function load(): typeof Binding {
  const names = candidates()
  const failures: unknown[] = []
  for (const name of names) {
    for (const module of [`../feishu-feed-card.${name}.node`, `feishu-feed-card-${name}`]) {
      try {
        return require(module) as typeof Binding
      } catch (error) {
        // "Not there" says nothing that the message below does not say.
        if ((error as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND') {
          failures.push(error)
        }
      }
    }
  }
  const packages = names.map((name) => `feishu-feed-card-${name}`).join(' or ')
  const why = failures.length > 0 ? 'does not load (see cause)' : 'is missing'
  throw new Error(
    `feishu-feed-card: the package with its native module, ${packages}, ${why}. ` +
      'It is an optional dependency: install again without --omit=optional or --no-optional, on the machine ' +
      `(and for the libc) it shall run on; or add it yourself: npm install ${packages.split(' ')[0]}. ` +
      'Of a bundle feishu-feed-card has to stay outside (external). ' +
      'In a clone of the repository: npm run build',
    failures.length > 0
      ? { cause: failures.length > 1 ? new AggregateError(failures) : failures[0] }
      : undefined,
  )
}

/** @internal */
export const native: typeof Binding = load()
