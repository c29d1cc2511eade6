// Searches the site as its front page does, and fails if a page is not found: node check_search.mjs SITE
import { readFileSync } from 'node:fs'
import path from 'node:path'

const site = path.resolve(process.argv[2])
const wanted = [
  ['en', 'set_time_sensitive', '/python/feishu_feed_card.html'],
  ['en', 'setTimeSensitive', '/node/classes/index.Client.html'],
  ['zh', '频率限制', '/zh/quota.html'],
  ['zh', '频率', '/zh/quota.html'],
]

// What Pagefind needs of a browser.
let language
globalThis.document = { currentScript: null, querySelector: () => ({ getAttribute: () => language }) }
globalThis.window = globalThis
globalThis.fetch = async (url) => new Response(readFileSync(path.join(site, url.split('?')[0])))

const program = readFileSync(path.join(site, 'pagefind/pagefind.js'), 'base64')
const instances = {}
for (language of ['en', 'zh']) {
  const { createInstance } = await import(`data:text/javascript;base64,${program}#${language}`)
  instances[language] = createInstance({ basePath: '/pagefind/', noWorker: true })
  await instances[language].init()
}
for (const [of, words, page] of wanted) {
  const { results } = await instances[of].search(words)
  const pages = await Promise.all(results.map((result) => result.data()))
  if (!pages.some(({ url }) => url === page)) {
    console.error(`${words}: not found in ${page}, but in ${results.length} others`)
    process.exit(1)
  }
}
process.exit(0)
