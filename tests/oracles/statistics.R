# Computes what R says of the data sets of statistics.json, and writes statistics_r.json. It needs R with car, lme4,
# rstatix, pwr, multtest and effectsize (Debian: r-cran-* and r-bioc-multtest):
#
#     Rscript tests/oracles/statistics.R
library(jsonlite)
suppressPackageStartupMessages({
  library(car)
  library(lme4)
  library(rstatix)
  library(multtest)
})

folder <- dirname(sub("^--file=", "", grep("^--file=", commandArgs(), value = TRUE)))
cases <- fromJSON(file.path(folder, "statistics.json"))
frame <- function(case, response) {
  data <- as.data.frame(cases[[case]]$data, stringsAsFactors = TRUE)
  for (name in setdiff(names(data), response)) data[[name]] <- factor(data[[name]])
  data
}
same <- function(ours, theirs) stopifnot(isTRUE(all.equal(sort(ours), sort(theirs))))
plain <- function(...) lapply(list(...), unname)

table_of <- function(model, type) {
  found <- car::Anova(model, type = type)
  found <- found[rownames(found) != "(Intercept)", ]
  terms <- rownames(found) != "Residuals"
  list(
    terms = rownames(found)[terms],
    sum_of_squares = found[terms, "Sum Sq"],
    freedom = found[terms, "Df"],
    f = found[terms, "F value"],
    p = found[terms, "Pr(>F)"],
    error = c(found["Residuals", "Sum Sq"], found["Residuals", "Df"])
  )
}
sums <- function(formula, data) {
  factors <- setdiff(all.vars(formula), all.vars(formula)[1])
  lm(formula, data, contrasts = setNames(rep(list("contr.sum"), length(factors)), factors))
}
# effectsize's bounds are noncentrality / (noncentrality + freedom of the error).
noncentralities <- function(f, freedom, error) {
  found <- effectsize::F_to_eta2(f, freedom, error, ci = 0.95, alternative = "two.sided")
  c(found$CI_low, found$CI_high) * error / (1 - c(found$CI_low, found$CI_high))
}

result <- list()

positions <- frame("positions", "response")
result$positions <- lapply(c(input = "input", output = "output"), function(factor) {
  found <- summary(aov(reformulate(factor, "response"), positions))[[1]]
  ranks <- kruskal.test(reformulate(factor, "response"), positions)
  list(
    f = found[1, "F value"], p = found[1, "Pr(>F)"], freedom = found[, "Df"],
    eta_squared = found[1, "Sum Sq"] / sum(found[, "Sum Sq"]),
    omega_squared = effectsize::F_to_omega2(found[1, "F value"], found[1, "Df"], found[2, "Df"])$Omega2_partial,
    noncentrality = noncentralities(found[1, "F value"], found[1, "Df"], found[2, "Df"]),
    kruskal = plain(ranks$statistic, ranks$parameter, ranks$p.value)
  )
})

kidney <- frame("kidney", "days")
kidney$y <- log(kidney$days + 1)
both <- sums(y ~ duration * weight, kidney)
result$kidney <- list(II = table_of(both, "II"), III = table_of(both, "III"))
levene <- car::leveneTest(y ~ duration, kidney)
result$kidney$levene <- c(levene[1, "F value"], levene[1, "Pr(>F)"])
shapiro <- shapiro.test(residuals(both))
result$kidney$shapiro <- plain(shapiro$statistic, shapiro$p.value)

moore <- frame("moore", "conformity")
same(moore$conformity, carData::Moore$conformity)
names_of_moore <- setdiff(names(moore), "conformity")
both <- sums(reformulate(paste(names_of_moore, collapse = "*"), "conformity"), moore)
result$moore <- list(II = table_of(both, "II"), III = table_of(both, "III"))

breaks <- frame("warpbreaks", "breaks")
same(breaks$breaks, warpbreaks$breaks)
found <- TukeyHSD(aov(breaks ~ wool + tension, breaks), "tension", ordered = FALSE)$tension
result$warpbreaks <- list(tukey = lapply(rownames(found), function(pair) {
  c(as.list(strsplit(pair, "-")[[1]]), as.list(unname(found[pair, ])))
}))

plants <- frame("plant_growth", "weight")
same(plants$weight, PlantGrowth$weight)
found <- summary(aov(weight ~ group, plants))[[1]]
ranks <- kruskal.test(weight ~ group, plants)
unequal <- oneway.test(weight ~ group, plants)
result$plant_growth <- list(
  aov = plain(f = found[1, "F value"], p = found[1, "Pr(>F)"]),
  kruskal = plain(statistic = ranks$statistic, freedom = ranks$parameter, p = ranks$p.value),
  welch = plain(f = unequal$statistic, freedom = unequal$parameter[2], p = unequal$p.value)
)

stress <- frame("stress", "reduction")
found <- games_howell_test(stress, reduction ~ treatment, conf.level = 0.99, detailed = TRUE)
result$stress <- list(games_howell = lapply(seq_len(nrow(found)), function(row) {
  # rstatix prints three digits of p; the distribution of its statistic has them all.
  p <- ptukey(found$statistic[row] * sqrt(2), 3, found$df[row], lower.tail = FALSE)
  stopifnot(isTRUE(all.equal(signif(p, 3), found$p.adj[row])))
  list(found$group1[row], found$group2[row], found$estimate[row], found$conf.low[row], found$conf.high[row], p)
}))

result$power <- list(
  pair = list(difference = 1, seeds = 30, power = pwr::pwr.t.test(d = 1, n = 30, type = "two.sample")$power),
  needed = list(difference = 1, power = 0.9, n = power.t.test(delta = 1, sd = 1, power = 0.9)$n),
  anova = list(
    groups = 4, each = 6, effect = 0.4, power = pwr::pwr.anova.test(k = 4, n = 6, f = 0.4)$power
  )
)

raw <- cases$multtest$data$raw
found <- mt.rawp2adjp(raw, c("Holm", "BH"))$adjp
result$multtest <- list(holm = unname(found[, "Holm"]), benjamini_hochberg = unname(found[, "BH"]))

pastes <- frame("pastes", "strength")
same(pastes$strength, Pastes$strength)
found <- as.data.frame(VarCorr(lmer(strength ~ 1 + (1 | batch) + (1 | sample), pastes)))
deviations <- as.list(setNames(found$sdcor, found$grp))
result$pastes <- list(deviations = list(
  batch = deviations$batch, sample = deviations$sample, residual = deviations$Residual
))

sleep <- frame("sleepstudy", "reaction")
same(sleep$reaction, sleepstudy$Reaction)
found <- lmer(reaction ~ days + (1 | subject), sleep)
wald <- car::Anova(found)
result$sleepstudy <- list(
  deviations = list(subject = sqrt(VarCorr(found)$subject[1]), residual = sigma(found)),
  wald = list(statistic = wald[1, "Chisq"], freedom = wald[1, "Df"])
)

versions <- vapply(
  c("car", "lme4", "rstatix", "pwr", "multtest", "effectsize"),
  function(package) paste(package, packageVersion(package)), ""
)
result$made_by <- paste0("R ", getRversion(), ", ", paste(versions, collapse = ", "))
lines <- vapply(names(result), function(case) {
  paste0(' "', case, '": ', toJSON(result[[case]], digits = NA, auto_unbox = TRUE))
}, "")
writeLines(c("{", paste0(lines, c(rep(",", length(lines) - 1), "")), "}"), file.path(folder, "statistics_r.json"))
cat(result$made_by, "\n")
