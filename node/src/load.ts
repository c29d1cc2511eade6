import { createRequire } from 'node:module'
import type * as Binding from './binding.js'

/** The platforms of which one may be this one; the module for the other libc does not load. */
function candidates(): string[] {
  const { platform, arch } = process
  const libcs: Record<string, string[]> = { linux: ['-gnu', '-musl'], win32: ['-msvc'] }
  return (libcs[platform] ?? ['']).map((libc) => `${platform}-${arch}${libc}`)
}

/** The platforms' packages that were published with this one; empty in a clone of the repository. */
function published(): string[] {
  try {
    // Hidden from bundlers: the package's own file is not for a bundle.
    const { optionalDependencies } = createRequire(__filename)('../package.json') as {
      optionalDependencies?: Record<string, string>
    }
    return Object.keys(optionalDependencies ?? {})
  } catch {
    return []
  }
}

/** Loads the native module: the one built in the clone, or the platform's package. */
function load(): typeof Binding {
  const failures: unknown[] = []
  const failed = (error: unknown) => {
    // "Not there" says nothing that the message below does not say.
    if ((error as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND') {
      failures.push(error)
    }
  }
  for (const name of candidates()) {
    try {
      // Hidden from bundlers, which would warn: it is in no published package.
      return createRequire(__filename)(`../feishu-feed-card.${name}.node`) as typeof Binding
    } catch (error) {
      failed(error)
    }
    try {
      // Bundlers and file tracers follow a `require` of a literal only, and within `try` they accept that the
      // package is not installed. A test compares the list with scripts/platforms.mjs.
      switch (name) {
        case 'darwin-arm64':
          return require('feishu-feed-card-darwin-arm64') as typeof Binding
        case 'darwin-x64':
          return require('feishu-feed-card-darwin-x64') as typeof Binding
        case 'linux-arm64-gnu':
          return require('feishu-feed-card-linux-arm64-gnu') as typeof Binding
        case 'linux-arm64-musl':
          return require('feishu-feed-card-linux-arm64-musl') as typeof Binding
        case 'linux-x64-gnu':
          return require('feishu-feed-card-linux-x64-gnu') as typeof Binding
        case 'linux-x64-musl':
          return require('feishu-feed-card-linux-x64-musl') as typeof Binding
        case 'win32-arm64-msvc':
          return require('feishu-feed-card-win32-arm64-msvc') as typeof Binding
        case 'win32-x64-msvc':
          return require('feishu-feed-card-win32-x64-msvc') as typeof Binding
        default:
          continue
      }
    } catch (error) {
      failed(error)
    }
  }
  const why = failures.length > 0 ? 'does not load (see cause)' : 'is missing'
  const cause =
    failures.length > 0
      ? { cause: failures.length > 1 ? new AggregateError(failures) : failures[0] }
      : undefined
  const names = published()
  if (names.length === 0) {
    throw new Error(
      `feishu-feed-card: the native module ${why}. In a clone of the repository, build it: npm run build. ` +
        'In a bundle, keep feishu-feed-card outside (external)',
      cause,
    )
  }
  const packages = candidates()
    .map((name) => `feishu-feed-card-${name}`)
    .filter((name) => names.includes(name))
  if (packages.length === 0) {
    throw new Error(
      `feishu-feed-card: there is no package with its native module for ${process.platform} on ${process.arch}, ` +
        `only ${names.join(', ')}. In a clone of the repository you can build it: npm run build`,
      cause,
    )
  }
  throw new Error(
    `feishu-feed-card: the package with its native module, ${packages.join(' or ')}, ${why}. ` +
      'It is an optional dependency: install again without --omit=optional or --no-optional, on the machine ' +
      `(and for the libc) it shall run on; or add it yourself: npm install ${packages[0]}. ` +
      'In a bundle, keep feishu-feed-card outside (external)',
    cause,
  )
}

/** @internal */
export const native: typeof Binding = load()
