// The page's words: English, Chinese. Texts that come from the server (reasons, advice) stay as they are.
const WORDS = {
  "failed": ["failed", "失败"],
  "interrupted": ["interrupted", "中断"],
  "asleep": ["did not wake", "未唤醒"],
  "missed": ["missed", "错过"],
  "cancelled": ["cancelled", "已取消"],
  "imaging": ["imaging", "写入中"],
  "waiting": ["waiting", "等待"],
  "planned": ["planned", "已计划"],
  "done": ["done", "完成"],
  "idle": ["idle", "空闲"],
  "new": ["new", "新"],
  "running": ["under way", "进行中"],
  "open": ["open", "进行中"],
  "over": ["over", "已结束"],
  "start": ["starting", "启动中"],
  "network": ["waiting for the network", "等待网络"],
  "discover": ["looking for the server", "寻找服务器"],
  "manifest": ["reading the manifest", "读取清单"],
  "claim": ["claiming the disk", "占用磁盘"],
  "check": ["checking the hardware", "检查硬件"],
  "checked": ["checked, nothing written", "已检查，未写入"],
  "error": ["error", "错误"],
  "compare": ["comparing what is there", "比较已有内容"],
  "hashes": ["waiting for the hashes", "等待校验值"],
  "disarm": ["disarming the old system", "停用旧系统"],
  "fetch": ["fetching the image", "接收镜像"],
  "verify": ["verifying from the disk", "从磁盘校验"],
  "commit": ["committing for boot", "启用新系统"],
  "serve": ["done, serving others", "完成，正在为其他终端供种"],
  "personalise": ["making the system its own", "个性化系统"],
  "leave": ["leaving", "离开"],
  "system": ["system", "系统"],
  "connecting": ["connecting …", "连接中…"],
  "live": ["live", "实时"],
  "lost": ["The server does not answer. What you see is old.", "服务器没有响应，显示的是旧数据。"],
  "terminals": ["terminals", "终端"],
  "terminal": ["terminal", "终端"],
  "rate": ["arriving in all", "总接收速率"],
  "left": ["until the last is done", "全部完成还需"],
  "views": ["views", "视图"],
  "grid": ["Rooms", "机房"],
  "list": ["List", "列表"],
  "jobs": ["Jobs", "任务"],
  "swarm": ["Swarm", "集群"],
  "act": ["Act", "操作"],
  "search": ["search", "搜索"],
  "any_room": ["all rooms", "所有机房"],
  "room_choice": ["room", "机房"],
  "states": ["filter by state", "按状态筛选"],
  "language": ["中文", "English"],
  "needs": ["Needs you", "需要处理"],
  "needs_nothing": ["Nothing needs you.", "没有需要处理的事项。"],
  "more": ["{0} more", "另有 {0} 个"],
  "new_terminals": ["new, nobody has registered them", "新终端，尚未登记"],
  "silent": ["nothing heard for a while", "一段时间没有响应"],
  "go_on": ["Switch it on again: it goes on by itself.", "重新开机后会自动继续。"],
  "half": ["The disk holds no system now.", "磁盘上现在没有系统。"],
  "room": ["room {0}", "机房 {0}"],
  "switch": ["switch {0}", "交换机 {0}"],
  "elsewhere": ["without a room", "未分配机房"],
  "none": [
    "No terminal has said hello yet. Netboot one, or import a table.",
    "还没有终端。请网络启动一台，或导入表格。",
  ],
  "no_match": ["No terminal fits the filter.", "没有符合筛选条件的终端。"],
  "all": ["Show all", "显示全部"],
  "state": ["state", "状态"],
  "progress": ["progress", "进度"],
  "image": ["image", "镜像"],
  "in": ["in", "接收"],
  "out": ["out", "发送"],
  "peers": ["peers", "对等点"],
  "time_left": ["time left", "剩余时间"],
  "reason": ["reason", "原因"],
  "place": ["place", "位置"],
  "address": ["address", "地址"],
  "machine": ["machine", "机型"],
  "close": ["close", "关闭"],
  "retry": ["Retry", "重试"],
  "cancel": ["Cancel", "取消"],
  "wake": ["Wake", "唤醒"],
  "report": ["Report", "报告"],
  "print": ["Print", "打印"],
  "csv": ["as a table (CSV)", "表格 (CSV)"],
  "sure_cancel_job": ["Cancel job {0}?", "取消任务 {0}？"],
  "sure_cancel": ["Cancel the job of {0}?", "取消 {0} 的任务？"],
  "ok_done": ["Accepted: {0}", "已接受：{0}"],
  "token": ["Token", "令牌"],
  "token_why": [
    "Acting needs a token (flashmob token create). It stays in this tab until you close it.",
    "操作需要令牌（flashmob token create）。令牌只保存在此标签页，关闭后即消失。",
  ],
  "token_keep": ["Use", "使用"],
  "token_drop": ["Forget it", "清除"],
  "token_has": ["A token is in use.", "正在使用令牌。"],
  "token_first": ["Paste a token first.", "请先粘贴令牌。"],
  "job": ["job {0}", "任务 {0}"],
  "no_jobs": ["There is no job. Nothing is imaged.", "没有任务，不会写入任何终端。"],
  "window": ["window", "时间窗口"],
  "targets": ["targets", "目标"],
  "counts": ["terminals", "终端"],
  "forecast": ["forecast", "预计"],
  "note": ["note", "备注"],
  "by": ["by", "创建者"],
  "phase": ["state", "状态"],
  "each": ["{0} each", "每台 {0}"],
  "end_in": ["the last in {0}", "最后一台还需 {0}"],
  "every": ["every {0}", "每 {0}"],
  "wave": ["waves of {0}", "每批 {0} 台"],
  "next": ["next {0}", "下次 {0}"],
  "of": ["{0} of {1} done", "{0}/{1} 完成"],
  "attempts": ["attempts", "尝试次数"],
  "since": ["since", "自"],
  "report_of": ["Report of job {0}", "任务 {0} 的报告"],
  "create": ["New job", "新任务"],
  "at": ["begins (empty: now)", "开始（留空：现在）"],
  "until": ["ends", "结束"],
  "wave_size": ["at once", "同时台数"],
  "wake_first": ["wake them", "唤醒终端"],
  "check_order": ["Check (dry run)", "检查（试运行）"],
  "do_create": ["Create it for {0} terminals", "为 {0} 台终端创建"],
  "loses": ["loses", "将丢失"],
  "findings": ["Look at these first", "请先查看"],
  "plan_all": ["all of them need about {0}", "全部约需 {0}"],
  "targets_hint": [
    "labels, room:101, group:…, zone:…, new, all",
    "名称、room:101、group:…、zone:…、new、all",
  ],
  "zones": ["Zones", "区域"],
  "zone": ["zone", "区域"],
  "uplink": ["comes in over the uplink", "上行链路接收"],
  "gateways": ["exchanges pieces with other zones through", "与其他区域交换数据的网关"],
  "no_zones": ["No zones are configured.", "没有配置区域。"],
  "images": ["Images", "镜像"],
  "payload": ["payload", "大小"],
  "signature": ["signature", "签名"],
  "fetching": ["peers fetching", "接收中的对等点"],
  "complete": ["peers complete", "完整的对等点"],
  "server_sends": ["server sends", "服务器发送"],
  "server_sent": ["server sent", "服务器已发送"],
  "torrent": ["torrent", "种子"],
  "download": ["download", "下载"],
  "no_images": ["The repository has no image.", "仓库中没有镜像。"],
  "not_seeded": ["not seeded", "未供种"],
  "good": ["good", "有效"],
  "bad": ["not by a known key", "未知密钥"],
  "missing": ["not signed", "未签名"],
  "unjudged": ["signed (no keys configured)", "已签名（未配置密钥）"],
  "macs": ["MACs", "MAC 地址"],
  "uuid": ["UUID", "UUID"],
  "seat": ["seat", "座位"],
  "groups": ["groups", "分组"],
  "hostname": ["host name", "主机名"],
  "first_heard": ["first heard", "首次出现"],
  "last_heard": ["last heard", "最近出现"],
  "never": ["never", "从未"],
  "agent": ["agent", "代理版本"],
  "cpu": ["processor", "处理器"],
  "memory": ["memory", "内存"],
  "firmware": ["firmware", "固件"],
  "disk": ["disk", "磁盘"],
  "missing_disk": ["missing disk", "缺失的磁盘"],
  "nic": ["network card", "网卡"],
  "installed": ["installed", "已安装"],
  "attempt": ["last attempt", "最近一次尝试"],
  "result": ["result", "结果"],
  "half_system": ["half a system, because an attempt did not finish", "系统不完整，因为尝试未完成"],
  "job_of": ["job", "任务"],
  "switch_of": ["switch", "交换机"],
  "gateway": ["gateway", "网关"],
  "warning": ["warning", "警告"],
  "log": ["log", "日志"],
  "history": ["attempt {0}", "尝试 {0}"],
  "skip": ["Skip to the terminals", "跳到终端"],
  "problem": ["problem", "问题"],
};

const asked = new URLSearchParams(location.search).get("lang");
const remembered = () => {
  try {
    return localStorage.getItem("flashmob.lang");
  } catch {
    return null;
  }
};
export let lang = asked || remembered() || (/^zh/i.test(navigator.language) ? "zh" : "en");

// The word for `key`; {0} and {1} are filled in. A key without an entry is shown as it is.
export function w(key, ...values) {
  const entry = WORDS[key];
  const text = entry ? entry[lang === "zh" ? 1 : 0] : key;
  return text.replace(/\{(\d)\}/g, (_, n) => values[n]);
}

// Puts words into the static parts of the document.
export function translate() {
  document.documentElement.lang = lang === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-w]")) node.textContent = w(node.dataset.w);
  for (const node of document.querySelectorAll("[data-label]"))
    node.setAttribute("aria-label", w(node.dataset.label));
  for (const node of document.querySelectorAll("[data-hint]")) node.placeholder = w(node.dataset.hint);
}

export function switchLanguage() {
  lang = lang === "zh" ? "en" : "zh";
  try {
    localStorage.setItem("flashmob.lang", lang);
  } catch {
    /* It is asked of the browser again. */
  }
  translate();
}
