namespace Tensormesh.TestKit;

/// <summary>The file that a person or a script sources to drive the product by hand.</summary>
public static class EnvironmentFile
{
    public static string Render(DevCluster cluster, Installation product)
    {
        ArgumentNullException.ThrowIfNull(cluster);
        ArgumentNullException.ThrowIfNull(product);
        return $"""
            # source this, then: kubectl get gpud,ba -A; curl -H "Authorization: Bearer $TENSORMESH_TOKEN" $TENSORMESH_URL/v1/billing/balance; psql $DATABASE_URL
            export KUBECONFIG={cluster.KubeconfigPath}
            export TENSORMESH_URL={product.WebUrl.GetLeftPart(UriPartial.Authority)}
            export TENSORMESH_ADMIN_TOKEN={product.AdminToken}
            # The customer: account acme.
            export TENSORMESH_TOKEN={product.Token("acme")}
            export DATABASE_URL={product.DatabaseUrl}
            export METRICS_URL={product.MetricsUrl}
            export TENSORMESH_OPERATOR_LOG={product.OperatorLog}
            export TENSORMESH_WEB_LOG={product.WebLog}
            export TENSORMESH_HOLD_SECONDS={(int)product.Options.HoldWindow.TotalSeconds}
            export TENSORMESH_USERS_OWN_CLUSTER={(cluster.IsUsersOwn ? 1 : 0)}
            export TENSORMESH_REAL_NODE={(cluster.HasRealNode ? 1 : 0)}

            """;
    }
}
