"""Every bound that a check decides by, and where it comes from."""

from typing import NamedTuple


class Threshold(NamedTuple):
    """A bound of a check, and where it comes from."""

    value: float
    why: str


# Every bound that a check decides by: a source, a law, or the calibration that set it. Skill is the
# share of the way from the best constant answer (0) to a perfect one (1).
THRESHOLDS: dict[str, Threshold] = {
    "signal": Threshold(
        0.1,
        "skill of a reference that shows a signal; three folds of 300 rows give "
        "a constant's skill within 0.06 on shuffled labels",
    ),
    "learned": Threshold(
        0.93, "share of a reference's skill: what noise in three folds leaves open"
    ),
    "failed": Threshold(
        0.67,
        "share of a reference's skill below which a run has not learned; "
        "healthy runs of our calibration end above 0.7",
    ),
    "collapse": Threshold(
        0.3, "validation skill over the reference's: less is memory, not learning"
    ),
    "cure": Threshold(0.5, "share of the gap to the best result that one change must close"),
    "plain gain": Threshold(
        0.25,
        "of skill, that one change brings a run that learned a part: a quarter of all there is",
    ),
    "measured": Threshold(
        0.9, "of the different rows, that a column of measured numbers has values: cells have few"
    ),
    "goes round": Threshold(
        0.5, "distance of neighbours' targets with the ends joined, over that on a line"
    ),
    "ends meet": Threshold(
        0.5,
        "what a loss tells the ends of the targets apart by, of what it tells others apart by: "
        "0.26 of months under a cosine, 1 under a distance",
    ),
    "one side": Threshold(
        0.9,
        "of the ids of one column, up to which those of the other go: of 200 rows none by chance",
    ),
    "even": Threshold(
        0.2,
        "distance of ids from evenly drawn ones (Kolmogorov-Smirnov): of frequent ones first it is "
        "0.5 and more",
    ),
    "stands still": Threshold(
        0.1, "of its first value, or of what is missing to 1, by which an evaluation must move"
    ),
    "alike steps": Threshold(
        0.5,
        "of what two neighbouring outputs see, counted from their own step; one of a stride "
        "of 4 has 0.6 in common with the next",
    ),
    "no better": Threshold(
        0.02, "of a constant answer's loss, by which that of the targets themselves lies below it"
    ),
    "gap": Threshold(0.1, "of skill: smaller gains are noise of one seed"),
    "growth": Threshold(10.0, "factor by which a diverging loss or weight outgrows its best"),
    "overshoot": Threshold(
        3.0, "loss over the first loss: a descent that climbs this far overshoots"
    ),
    "large step": Threshold(
        0.01,
        "length of an update over that of the weights: ten times the 1e-3 "
        "of a healthy run (Karpathy, CS231n notes, part 3)",
    ),
    "leap": Threshold(
        0.1,
        "the same, of the step before the first non-finite number: a hundred times a healthy one",
    ),
    "slow step": Threshold(1e-4, "the same, below: a tenth of a healthy run's"),
    "come again": Threshold(0.7, "different row numbers of the batches, of all: less come again"),
    "fades": Threshold(0.3, "median update of a third of the turns, of that of the third before"),
    "faded": Threshold(1e-4, "of the longest update: a cosine is there a hundredth before its end"),
    "faded away": Threshold(
        0.01, "the same, of the steps after 240 of a loop that has not learned; a cosine has more"
    ),
    "served": Threshold(
        0.1, "of its first value, to which a penalty falls that outweighs the data; measured: 0.001"
    ),
    "of the peak": Threshold(
        0.3, "of the longest update, which a run should reach: shorter ones are a warm-up alone"
    ),
    "distance": Threshold(
        0.05, "lengths of the weights that a whole run covers: what learns here covers 0.3 or more"
    ),
    "ascent": Threshold(0.1, "cosine of update and gradient: descent with any momentum is below 0"),
    "along": Threshold(
        0.5, "the same of one leaf, in each of the first steps: momentum climbs in single ones"
    ),
    "tiny inputs": Threshold(
        0.05,
        "largest mean and deviation of a column: first-layer signals "
        "twenty times below those that initializers assume",
    ),
    "huge inputs": Threshold(
        10.0,
        "the same, above: ten times what initializers assume; centimetres "
        "and counts below 10 train unscaled",
    ),
    "huge signal": Threshold(
        1e4, "root mean square of a layer's outputs: He starts give 1, squares overflow at 1e19"
    ),
    "exploding": Threshold(
        100.0,
        "first over last layer's gradient, or last over first signal, or an early over a late "
        "step's gradient; batch normalization gains 1.2 a layer (Yang 2019)",
    ),
    "decayed": Threshold(0.1, "share of the weights that decay alone takes in a run: less is mild"),
    "decays": Threshold(
        0.5, "cosine of a parameter and its move, from which on it may decay: 0.8 through Adam"
    ),
    "decay beside": Threshold(
        0.01,
        "what decay adds at the first step over what it is added to: less is not tried without",
    ),
    "forgotten": Threshold(1e-2, "gradient of the first quarter of a sequence over the largest"),
    "vanishing": Threshold(
        0.03,
        "first over last layer's gradient: a logistic layer passes at most "
        "1/4, so three of them 1/64",
    ),
    "weak kernel": Threshold(
        0.71,
        "kernel deviation times sqrt(fan-in): half of the sqrt(2) of He et al. 2015",
    ),
    "falls": Threshold(0.02, "fall of the loss in the last fifth over that of the run before it"),
    "dying signal": Threshold(
        0.1, "last hidden over first hidden signal: a unit with a bias drowns it"
    ),
    "noise": Threshold(
        0.8,
        "share of the outputs' variance that dropout draws: rates of 0.5 in two layers give 0.5",
    ),
    "always noisy": Threshold(
        0.1, "share of the outputs' variance that is drawn, of a network without modes"
    ),
    "few steps": Threshold(20, "steps: what Adam at 1e-3 cannot move a weight by 0.02 in"),
    "hard": Threshold(0.9, "confidence of a program that cannot learn, whatever the rest is"),
    "soft": Threshold(0.6, "confidence of an output that one can learn with, slowly"),
    "tie": Threshold(0.05, "of skill: two runs that are equally good"),
    "strong kernel": Threshold(4.0, "the same: above, a layer multiplies the signal by 4 or more"),
    "dead": Threshold(
        1.0, "share of units that no row activates: one living unit lets signals pass"
    ),
    "summed rows": Threshold(8, "rows of a batch: with fewer, a sum hardly differs from a mean"),
    "hardly": Threshold(0.2, "times as often predicted as asked for: a class that drowns"),
    "balanced": Threshold(
        0.3, "skill by balanced accuracy: of 1,200 rows with 12 rare ones chance gives 0.15"
    ),
    "lookup": Threshold(0.9, "skill of a table of the training rows: below, labels contradict"),
    "weighs": Threshold(
        1.5, "weight of a class over another's, in the loss: less moves hardly an answer"
    ),
    "rarer": Threshold(3.0, "rows of a class over another's, whose weights should not be larger"),
    "of a filler": Threshold(0.05, "of the targets: fewer have the most frequent number by chance"),
    "without code": Threshold(
        0.05, "of the steps of a one-hot sequence: a symbol or two that nobody could read are fewer"
    ),
    "rows without code": Threshold(0.25, "of the rows that have so many: then it is the code"),
    "few blanks": Threshold(
        0.1, "share of rows with one constant target: fewer may be rows without anything in them"
    ),
    "looks alike": Threshold(
        0.7,
        "variance of what is predicted for blank rows over that for others: empty ones have less",
    ),
    "imbalance": Threshold(10.0, "most frequent over rarest class; ten digits by chance reach 1.3"),
    "found around": Threshold(
        0.2, "skill of a linear model of the inputs around a place: chance gives 0.05"
    ),
    "repeated": Threshold(
        0.1, "share of rows that stand more than once: with fewer, a table of them says little"
    ),
    "shifted": Threshold(1.0, "deviations between the means of two splits"),
    "shifted, in order": Threshold(0.2, "the same, where the training rows are sorted"),
    "stretched": Threshold(3.0, "deviation of a split over that of the training rows, or under"),
    "leak": Threshold(0.02, "share of validation rows that are training rows"),
    "looked up": Threshold(
        0.5, "share of the rows of a batch: joined graphs reach all but what fills it up"
    ),
    "goes on": Threshold(0.3, "of how far any rows are apart: what goes on is next to it"),
    "goes on somewhere": Threshold(
        0.25, "of the batches: of several epochs those that are looked at hold so many followers"
    ),
    "elsewhere": Threshold(0.6, "of how far any rows are apart: nothing goes on there"),
    "several values": Threshold(
        4, "of targets that a loss leaves out: fewer may be flags, or a mask itself"
    ),
    "copies": Threshold(0.5, "share of different rows: tables of a few values repeat some"),
    "shift by one": Threshold(
        0.95, "of the targets that are the next inputs: all but the ends of a language model's"
    ),
    "learnable": Threshold(
        0.2, "skill of a simple model inside a split: twice what noise of three folds gives"
    ),
    "sure": Threshold(
        4.0, "standard errors between two splits: one in 30,000 by chance, and rows are few"
    ),
    "renumbered": Threshold(
        0.1,
        "more of the variance of a split's targets that the training means of a column's numbers "
        "must explain, where the numbers that seem to be missing are left open",
    ),
    "told apart": Threshold(
        0.5, "skill of a linear model that tells training inputs from others: chance gives 0.1"
    ),
    "in time": Threshold(
        0.3, "by which rows that follow each other are alike: shuffled ones 0, a slow series 0.9"
    ),
    "unseen": Threshold(0.05, "share of validation rows whose class is not in training"),
    "histograms": Threshold(
        0.4, "share of rows that would have to change class between the splits"
    ),
    "sorted": Threshold(0.2, "changes of class from row to row, over what chance gives"),
    "zero targets": Threshold(0.01, "share of targets that are 0: fewer are an accident"),
    "outside": Threshold(1e-3, "of the targets' deviation: how far outside a target counts"),
    "sums to one": Threshold(0.05, "by which rows of targets may miss 1 and count as shares"),
    "out of range": Threshold(
        0.01, "share of the targets' variance that outputs cannot reach: less is rounding"
    ),
    "narrow": Threshold(
        4.0, "range of a bounded logit: e**4 to 1 is the most that two classes can differ"
    ),
    "one best output": Threshold(
        0.3, "share of the targets' range with one best answer: healthy losses have 0"
    ),
    "one answer": Threshold(
        0.05,
        "of what answers of other rows cost more than right ones, that one answer for all rows "
        "may: of a squared error it is a half",
    ),
    "one length": Threshold(
        1e-3, "of the outputs' mean norm, by which those of rows that are divided by theirs differ"
    ),
    "probabilities": Threshold(1e-3, "of 1: what rounding leaves of a sum of probabilities"),
    "floor": Threshold(0.2, "share of drawn outputs at the bound: with ReLU it is a half"),
    "even steps": Threshold(
        0.1, "of their mean, by which steps of the loss differ where a probability falls to a tenth"
    ),
    "only true": Threshold(
        0.05, "loss of outputs of 1 over that of equal probabilities: others do not count"
    ),
    "margin": Threshold(0.2, "by which a loss of twice a wrong margin differs from twice the loss"),
    "calibrated": Threshold(0.02, "of the range of the targets: the distance to the best output"),
    "target weights": Threshold(
        1e4, "gradient of zeros over that of ones: class weights stay far below"
    ),
    "curved": Threshold(
        0.3,
        "of the variance, by which a curved fit beats an affine one: linear classifiers of "
        "healthy digits lose 0.16",
    ),
    "affine": Threshold(0.3, "of the variance: where an affine map explains less, it does not fit"),
    "domain": Threshold(50.0, "output of the last layer that training may well reach"),
    "twice the loss": Threshold(0.01, "by which the loss of a batch repeated may miss twice it"),
    "still steps": Threshold(0.5, "share of steps that equal the one before: no sequence to tell"),
    "steady slope": Threshold(
        1e-4, "of the largest slope: smaller ones drown in the rounding of the loss"
    ),
    "nothing": Threshold(1e-6, "of a loss: what rounding leaves of a term that is 0"),
    "felt": Threshold(1e-6, "of the gradient: below, the loss does not depend on the parameter"),
    "far off": Threshold(2.0, "gradient over slope, or under: a difference that is no rounding"),
    "batch dependence": Threshold(
        1e-3, "of the largest output, by which a row may change with its batch: rounding"
    ),
    "slope": Threshold(
        0.05, "of the larger of two: central differences in double precision agree to 1e-6"
    ),
    "fractions": Threshold(
        0.01, "of the variance: integers that are kept as floating point lose none when cast"
    ),
    "curvature": Threshold(2.0, "rate times curvature: gradient descent on a parabola diverges"),
    "still falling": Threshold(
        0.15, "of the fall of a loss, from its eighth to its last tenth: an even fall has 0.22"
    ),
    "climb": Threshold(0.2, "of the first loss: batches that differ climb less"),
    "outrun": Threshold(1.0, "lengths of the weights in one of the first five steps"),
    "saturated": Threshold(0.5, "share of a layer's units that have lost their slope: most"),
    "at rest": Threshold(
        0.01, "gradient after the last update over that before it: below, the loss is at rest"
    ),
    "identical": Threshold(1e-3, "of the largest weight: columns that differ by less are the same"),
    "arrived": Threshold(
        0.9, "of the first loss: of a run whose loss falls this far the steps are long enough"
    ),
    "huge batch": Threshold(4, "times 32 rows: where fewer rows give far more steps"),
    "good": Threshold(
        0.5, "skill in training mode that is good where simple models find less or nothing"
    ),
    "doubled": Threshold(1e-3, "of a loss: what rounding leaves between it and twice its half"),
    "melted": Threshold(
        0.1, "of its first value, to which a rate falls within the few steps that are looked at"
    ),
    "lost": Threshold(
        0.5, "share of a kernel's numbers that a step leaves as they are: half of them is rounding"
    ),
    "arrives": Threshold(
        0.5, "share of the way of an average in float32 that one in half precision goes"
    ),
    "promoted": Threshold(
        0.5, "confidence of a note that is the fault where no other fault is found"
    ),
    "partners": Threshold(
        4.0, "standard errors by which rows are more alike than any two: two orders are asked"
    ),
    "strangers": Threshold(2.5, "the same, of rows that are no more alike than chance has it"),
    "alike": Threshold(10.0, "largest over median deviation of features: they have one scale"),
    "hidden": Threshold(
        1e-4,
        "of what a row moves with its filling in front: rounding leaves 1e-6 where it is forgotten",
    ),
    "faint": Threshold(
        1e-6, "least over largest gradient in time: one that fades to 0 passes through tiny ones"
    ),
    "pulls": Threshold(
        0.5, "gradient of a term without targets over that of the others: a healthy code has 0.2"
    ),
    "of the constant": Threshold(
        0.02, "of the loss of a constant answer, by which a loss of unknown floor falls below it"
    ),
    "mostly": Threshold(0.5, "share of the parameters: fewer may be frozen and hardly be missed"),
    "another start": Threshold(2.0, "size of a kernel over that of another start, or under"),
    "wide": Threshold(
        64.0, "units of the narrowest layer, from which on width is not what a small task lacks"
    ),
    "follows": Threshold(
        0.2, "cosine of a step, or of a moment, and the gradient of what is taken for the loss"
    ),
    "runs away": Threshold(
        100.0, "of its first value, that a loss ends at: targets that move make it rise, not so far"
    ),
    "unlike parts": Threshold(
        3.0, "times as many targets in one part of a batch: chance makes less of a difference"
    ),
    "cancels out": Threshold(
        1e-5,
        "of the largest gradient: one that is 0 but for rounding, as of a bias before a softmax",
    ),
    "compiled in": Threshold(
        1e-3, "of an update, by which one that is compiled anew differs: rounding is 1e-5"
    ),
    "climbs": Threshold(
        0.1, "cosine of the first update of a leaf and its gradient: decay of weights stays below"
    ),
    "climbs alone": Threshold(
        0.5, "the same, where others descend: a raw gradient has 1, decay of small weights less"
    ),
    "copied": Threshold(1e-3, "of the way to a network, by which a copy of it may overshoot"),
    "towards": Threshold(0.3, "share of a move that leads elsewhere than to the network followed"),
    "pulled": Threshold(
        0.01, "of a copy that stands, in new parameters: gradients bring 0.002, mostly elsewhere"
    ),
    "small change": Threshold(
        0.01, "deviations of an array, that are added to it to see what moves with it"
    ),
    "half the way": Threshold(
        0.5, "of what the parameters have gained on evaluation, that an average of them must have"
    ),
    "long memory": Threshold(
        5.0, "times the steps made, that an average remembers: a decay of 0.999 has 4"
    ),
    "learned by a loop": Threshold(
        0.1, "last over first loss, from which on little is left to learn"
    ),
    "cured": Threshold(
        0.5, "share of an error, or of what an accuracy lacks, that a small edit must leave at most"
    ),
    "clear cure": Threshold(
        0.1, "of the error before the first step, or of 1, that a small edit must take away"
    ),
    "well learned": Threshold(0.9, "skill from which on no edit is tried of what is learned"),
    "most of the rest": Threshold(
        0.25, "of what is missing to 1, that an edit may leave of a task that is learned in part"
    ),
    "as good an edit": Threshold(0.8, "of the best gain, from which on an edit is as good"),
    "steps on": Threshold(
        0.5, "share of repeated numbers one row after its neighbour: a counter has 1, names few"
    ),
    "another scale": Threshold(
        10, "deviation of the inputs of evaluation over those of training, or the inverse"
    ),
    "another place": Threshold(
        5, "deviations of the training inputs, by which the mean of those of evaluation is off"
    ),
    "straight": Threshold(1e-3, "the same, of a move that rounding alone bends"),
    "updates a call": Threshold(4, "updates: twice in a call is the delay of TD3, four is none"),
    "slow share": Threshold(0.5, "of the way: a target that moves by more is a copy now and then"),
    "same network": Threshold(
        0.3,
        "of its size, by which a network differs from its copy of a few steps before; another "
        "start differs by 1.4",
    ),
    "long record": Threshold(
        200, "recorded steps, in which a target network has moved at least once"
    ),
    "devices apart": Threshold(1e-4, "of the largest parameter: sums in another order give 1e-6"),
    "twice the update": Threshold(0.02, "by which the update of a batch twice may miss twice it"),
    "falls here": Threshold(0.5, "last over first loss of what learns, beside a loop that stands"),
    "renamed": Threshold(
        0.5, "from one name for all to every label by another name: one network takes some for one"
    ),
    "any order": Threshold(
        3.0, "times the variance by chance of the mean edges of the nodes of a number"
    ),
    "few edges": Threshold(0.5, "share of the pairs of nodes that are joined; distances join all"),
    "fallen far": Threshold(
        0.5, "of the first loss: what longer updates take away in as many steps"
    ),
    "healthy step": Threshold(1e-3, "update over weights, of a healthy run"),
    "squeezed": Threshold(0.01, "factor of a gradient, as of a clip that leaves next to nothing"),
    "fallen": Threshold(0.1, "of the first loss: a smaller fall is no learning"),
    "turns": Threshold(0.9, "share of steps after which a loss turns; noise turns at 2/3 of them"),
    "turned": Threshold(1.2, "last over best validation loss"),
    "clipped": Threshold(0.9, "share of steps: a clip is meant for spikes"),
    "first loss": Threshold(
        10.0, "over the loss of a constant answer: an order of magnitude, not calibrated; a note"
    ),
    "drawn": Threshold(
        0.25, "share of the variance of what drawn numbers meet: dropout has about its rate"
    ),
    "filler": Threshold(
        0.1, "share of numbers and of row ends that are the same one: what pads rows is that often"
    ),
    "much ignored": Threshold(
        0.25, "share of a row that changes no output: borders of a convolution are below"
    ),
    "known rows": Threshold(
        0.9, "share of rows that are known again: others were cropped or drawn"
    ),
    "same row": Threshold(
        0.05, "of the usual distance to the nearest row: what is so near is the row, and rounding"
    ),
    "nearest row": Threshold(
        0.5, "of the distance to the second row: of rows drawn in 9 columns one in 50 is so near"
    ),
    "turned back": Threshold(
        0.1,
        "by which neighbours are more alike once bytes are turned back; else it makes them less so",
    ),
    "steps alike": Threshold(
        0.3,
        "correlation of neighbouring steps of a row, of series; in any order it is about 0",
    ),
    "neighbours alike": Threshold(
        0.3,
        "likeness of pixels side by side, of pictures: of photographs it is 0.4 to 0.8, of noise 0",
    ),
    "read better": Threshold(
        0.05, "by which neighbours are more alike in the right order: of photographs by 0.09 to 0.2"
    ),
    "wrapped": Threshold(1e-3, "share of numbers that wrapped round: fewer may be one bad row"),
    "rows for no signal": Threshold(100, "rows: with fewer, held-out skill is noise"),
}


def bound(name: str) -> float:
    """The value of a threshold."""
    return THRESHOLDS[name].value
