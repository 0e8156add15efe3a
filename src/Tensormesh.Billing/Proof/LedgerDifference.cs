namespace Tensormesh.Billing;

/// <summary>Where the books are not what they must be.</summary>
/// <param name="What">The transaction, balance, seal or run that it is about.</param>
public sealed record LedgerDifference(string What, string Expected, string Found)
{
    public override string ToString() => $"{What}: expected {Expected}, found {Found}";
}
