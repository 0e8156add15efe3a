namespace Tensormesh.Billing;

/// <summary>The paying account: the name of its BillingAccount, and the value of a namespace's label
/// <c>tensormesh.ai/account</c>.</summary>
public readonly record struct AccountId(string Value)
{
    public override string ToString() => Value;
}

/// <summary>The uid of a GpuDeployment: a deployment deleted and made again under one name is another deployment.</summary>
public readonly record struct DeploymentId(Guid Value)
{
    public override string ToString() => Value.ToString();
}

/// <summary>The uid of a pod.</summary>
public readonly record struct PodId(Guid Value)
{
    public override string ToString() => Value.ToString();
}

/// <summary>A GPU product as GPU Feature Discovery labels it: <c>NVIDIA-H100-80GB-HBM3</c>.</summary>
public readonly record struct GpuProduct(string Name)
{
    public override string ToString() => Name;
}

/// <summary>An immutable version of one price.</summary>
public readonly record struct PriceVersionId(long Value)
{
    public override string ToString() => Value.ToString(System.Globalization.CultureInfo.InvariantCulture);
}
