// The platforms of the native module: Rust's target triple, and Node's and npm's names.
export const platforms = {
  'aarch64-apple-darwin': { name: 'darwin-arm64', os: 'darwin', cpu: 'arm64' },
  'aarch64-pc-windows-msvc': { name: 'win32-arm64-msvc', os: 'win32', cpu: 'arm64' },
  'aarch64-unknown-linux-gnu': { name: 'linux-arm64-gnu', os: 'linux', cpu: 'arm64', libc: 'glibc' },
  'aarch64-unknown-linux-musl': { name: 'linux-arm64-musl', os: 'linux', cpu: 'arm64', libc: 'musl' },
  'x86_64-apple-darwin': { name: 'darwin-x64', os: 'darwin', cpu: 'x64' },
  'x86_64-pc-windows-msvc': { name: 'win32-x64-msvc', os: 'win32', cpu: 'x64' },
  'x86_64-unknown-linux-gnu': { name: 'linux-x64-gnu', os: 'linux', cpu: 'x64', libc: 'glibc' },
  'x86_64-unknown-linux-musl': { name: 'linux-x64-musl', os: 'linux', cpu: 'x64', libc: 'musl' },
}

/** Returns the platform of a Rust target, or of this machine. */
export function platformOf(target) {
  if (target !== undefined) {
    const platform = platforms[target]
    if (platform === undefined) {
      throw new Error(
        `no package for the target ${target}; expected one of ${Object.keys(platforms).join(', ')}`,
      )
    }
    return platform
  }
  const libc =
    process.platform === 'linux' && (process.report.getReport().header.glibcVersionRuntime ? 'glibc' : 'musl')
  const here = Object.values(platforms).find(
    (platform) =>
      platform.os === process.platform && platform.cpu === process.arch && (platform.libc ?? false) === libc,
  )
  if (here === undefined) {
    throw new Error(`no package for ${process.platform}-${process.arch}`)
  }
  return here
}

export const nativeFile = ({ name }) => `feishu-feed-card.${name}.node`

export const packageName = ({ name }) => `feishu-feed-card-${name}`
