import { createRequire } from 'node:module'
import type * as Binding from './binding.js'

/** Returns the platforms to try. On Linux there are two, and the module for the other libc does not load. */
function candidates(): string[] {
  const { platform, arch } = process
  const libcs: Record<string, string[]> = { linux: ['-gnu', '-musl'], win32: ['-msvc'] }
  return (libcs[platform] ?? ['']).map((libc) => `${platform}-${arch}${libc}`)
}

/** Returns the platform packages published together with this package. Empty in a clone of the repository. */
function published(): string[] {
  try {
    // `createRequire` hides the file from bundlers, which must not include it.
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
    // The message below already says that the module is missing.
    if ((error as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND') {
      failures.push(error)
    }
  }
  for (const name of candidates()) {
    try {
      // `createRequire` hides the file from bundlers. They would warn, because no published package contains it.
      return createRequire(__filename)(`../feishu-feed-card.${name}.node`) as typeof Binding
    } catch (error) {
      failed(error)
    }
    try {
      // Bundlers and file tracers follow only a `require` of a literal. Within `try` they accept a missing package. A
      // test compares this list with scripts/platforms.mjs.
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
  const problem = failures.length > 0 ? 'cannot be loaded (see cause)' : 'is missing'
  const cause =
    failures.length > 0
      ? { cause: failures.length > 1 ? new AggregateError(failures) : failures[0] }
      : undefined
  const names = published()
  if (names.length === 0) {
    throw new Error(
      `feishu-feed-card: the native module ${problem}. In a clone of the repository, run npm run build. ` +
        'With a bundler, mark feishu-feed-card as external',
      cause,
    )
  }
  const packages = candidates()
    .map((name) => `feishu-feed-card-${name}`)
    .filter((name) => names.includes(name))
  if (packages.length === 0) {
    throw new Error(
      `feishu-feed-card: no native module is published for ${process.platform}-${process.arch}, ` +
        `only ${names.join(', ')}. In a clone of the repository, run npm run build`,
      cause,
    )
  }
  throw new Error(
    `feishu-feed-card: the package of the native module, ${packages.join(' or ')}, ${problem}. ` +
      'It is an optional dependency: install again without --omit=optional or --no-optional, on a machine with ' +
      `the target's platform and libc, or run npm install ${packages[0]}. ` +
      'With a bundler, mark feishu-feed-card as external',
    cause,
  )
}

/** @internal */
export const native: typeof Binding = load()
