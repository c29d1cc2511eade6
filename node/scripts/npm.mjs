import { spawnSync } from 'node:child_process'

/** Runs npm. On Windows npm is a script, `npm.cmd`, which only a shell can start: so its arguments are quoted. */
export function npm(args, options) {
  if (process.platform !== 'win32') {
    return spawnSync('npm', args, options)
  }
  const line = ['npm', ...args.map((argument) => `"${argument}"`)].join(' ')
  return spawnSync(line, { ...options, shell: true })
}
