namespace Tensormesh.Simulation.Tests;

/// <summary>A fault that is planted on purpose: what the simulation must find, or it proves nothing.</summary>
internal enum Flaw
{
    None,
    /// <summary>Pods are let go, and nobody records that they ended.</summary>
    ForgetsEnds,
    /// <summary>An end is recorded as of when it was noticed.</summary>
    RecordsEndsAsSeen,
    /// <summary>A window is charged once more, under a key of its own.</summary>
    ChargesTwice,
    /// <summary>What the gate refused is started all the same.</summary>
    StartsInSpiteOfRefusal,
    /// <summary>An outage of the ledger is taken for a refusal.</summary>
    StopsWhenNotKnowing,
    /// <summary>What was held for a deployment that is gone stays held.</summary>
    KeepsHolds,
    /// <summary>A payment whose answer was lost is tried again under another key.</summary>
    PaysUnderANewKey,
    /// <summary>The epoch is not asked of an operator that was overtaken.</summary>
    IsNotFenced,
}
